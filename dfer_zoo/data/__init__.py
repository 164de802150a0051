"""Data sets: annotation files as rows, lists and prepared folders, and puppets, the drawn test data."""
