"""Tunesmith's trainer: what runs inside the pods that train and evaluate adapters."""
