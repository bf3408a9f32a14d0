"""One claim, one file: what is said, who says it, which runs, what decides; all fixed before the run."""
