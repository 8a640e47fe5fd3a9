"""Where samples come from: readers, splits, the loader."""
