"""Benchmarks of lm-evaluation-harness: which tasks there are, and their data on a volume."""
