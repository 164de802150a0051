"""Data sets: annotation lists, and the drawn one."""
