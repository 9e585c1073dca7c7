"""Measuring an adapter against its base model, on the same questions."""
