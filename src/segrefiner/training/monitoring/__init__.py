"""What can be seen of a training run: its means, its validation, pictures of examples, TensorBoard and its report.

No training step and no checkpoint.
"""
