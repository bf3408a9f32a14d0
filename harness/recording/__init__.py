"""Windows and censuses of what the hooks see: Recorder, scan, probe, and the listeners of a training."""
