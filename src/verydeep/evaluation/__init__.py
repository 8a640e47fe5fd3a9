"""Turning weights and images into posteriors and errors."""
