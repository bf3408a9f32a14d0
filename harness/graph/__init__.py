"""What a forward pass does: which layer makes a unit, which reads it, and on which axes."""
