"""The activation functions, one record each: how they are spelled, and on which inputs their gate is open."""
