"""The parts of the published recipes that are arithmetic: schedules, mixing, criteria, parameter groups."""
