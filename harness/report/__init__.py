"""Views of what the store holds: console, TensorBoard, figures. Rebuildable at any time."""
