"""Tables in, verdicts out; no torch."""
