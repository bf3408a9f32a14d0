"""The edge: the value of a number in the configuration at which the dead share crosses a threshold."""
