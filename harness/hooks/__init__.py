"""Hooks on anyone's model: which activations run, on whose units, in which passes."""
