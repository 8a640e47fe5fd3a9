"""Timed comparisons with named peers: ratios measured in one run."""
