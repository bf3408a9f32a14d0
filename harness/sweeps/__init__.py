"""Jobs: how a specification becomes a finished run."""
