"""Jobs and sweeps: turn specifications into finished runs."""
