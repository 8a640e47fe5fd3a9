"""Other people's weight formats and engines, in and out."""
