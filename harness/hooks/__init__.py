"""Observation of anyone's model: sites, per-unit statistics, censuses."""
