"""A run on disk: the source of truth of everything that is shown."""
