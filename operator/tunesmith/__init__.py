"""Tunesmith: train, evaluate and serve LLM adapters from one declared file."""

__version__ = "0.1.0"
