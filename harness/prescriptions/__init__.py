"""Prescribe: the plausible cures are tried on a training, and the smallest that works is recommended."""
