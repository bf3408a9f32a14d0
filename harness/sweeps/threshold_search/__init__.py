"""Find the edge: the value of a numeric configuration key at which the dead share crosses a threshold."""
