"""Hooks on arbitrary models: which activations run, on which units, in which passes."""
