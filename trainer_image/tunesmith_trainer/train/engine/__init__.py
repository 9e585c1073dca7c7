"""The training engine: how a model is held in memory, and how a step is computed."""
