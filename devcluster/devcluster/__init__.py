"""A real single-node Kubernetes for development, demonstrations and tests, without Docker."""
