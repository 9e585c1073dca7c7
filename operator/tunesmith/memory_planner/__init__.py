"""How a training fits into memory: a prediction, and a plan made from it.

Read by the operator, by the trainer and by the command ``python -m tunesmith.memory_planner``.
Nothing here needs torch, a GPU or the model's weights: config.json is enough.
"""
