"""What the operator tells Prometheus about itself and about the objects it looks after."""
