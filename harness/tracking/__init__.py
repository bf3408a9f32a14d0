"""Trainings of one's own: watched in one line, and kept as runs like any other."""
