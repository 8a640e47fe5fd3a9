"""Making weights: recipes, schedules, the training loop."""
