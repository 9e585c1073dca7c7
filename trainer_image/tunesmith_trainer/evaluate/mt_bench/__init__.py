"""MT-Bench: conversations of two turns that a judge rates (arXiv:2306.05685)."""
