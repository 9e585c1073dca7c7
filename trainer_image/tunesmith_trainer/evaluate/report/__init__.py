"""The evaluation's page for people."""
