"""A class for each pixel: what training does for it otherwise, pictures and images of any size, metrics, files."""
