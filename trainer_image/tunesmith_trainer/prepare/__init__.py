"""Making the data ready, before a GPU is asked for."""
