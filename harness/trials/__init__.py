"""Repeat a training with one thing changed, to find what kills its units and which cure works."""
