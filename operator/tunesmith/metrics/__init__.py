"""What the operator tells Prometheus about itself and about the objects it looks after.

``activity`` and ``results`` are counted with and know nothing of the rest; ``census`` and
``operation`` look at what there is when somebody asks, and ``exposition`` answers.
"""
