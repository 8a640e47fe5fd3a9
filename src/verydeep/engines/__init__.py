"""A fast CPU engine for stacks of 3x3 convolutions."""
