"""Networks: configurations as data, layers, geometry, initialization, weights files."""
