"""Structure of a forward pass: which layer makes a unit, which layers read it, and on which axes."""
