"""Everything that speaks to the cluster, and the pure readings of what it answers."""
