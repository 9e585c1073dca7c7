"""The page that tells how a training went."""
