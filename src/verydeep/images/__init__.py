"""Pictures: decode, rescale, crop, color."""
