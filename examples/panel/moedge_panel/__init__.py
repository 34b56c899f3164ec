"""A demonstration model that reads an instrument panel: renderer, questions, training, evaluation, video."""
