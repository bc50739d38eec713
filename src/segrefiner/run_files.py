"""What the files in a training run's folder are called."""

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.jsonl"
VALIDATION_NAME = "validation.jsonl"
FAILURES_NAME = "failures.jsonl"
RECIPE_NAME = "recipe.json"
PICTURES_NAME = "pictures"
