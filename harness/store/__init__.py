"""Runs on disk: the source of truth for everything that is shown."""
