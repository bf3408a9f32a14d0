"""Views of stored runs: console, TensorBoard, figures. They can be rebuilt at any time."""
