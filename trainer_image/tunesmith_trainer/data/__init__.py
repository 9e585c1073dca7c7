"""From a JSON Lines file to token sequences."""
