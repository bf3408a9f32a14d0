"""Observe a user's own training with one line of code, and store it as an ordinary run."""
