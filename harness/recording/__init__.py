"""Windows and censuses from the hooks: recorder core, scan, probe, and listeners."""
