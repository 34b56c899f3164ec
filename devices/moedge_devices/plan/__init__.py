"""Plans a model on a board: memory by part, expected times, a verdict."""
