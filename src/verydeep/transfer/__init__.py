"""Descriptors of pictures and linear classifiers on them (appendix B of the paper)."""
