"""Pictures compared by what a network makes of them: features, metrics, losses."""
