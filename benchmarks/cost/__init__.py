"""What a refinement and a training step cost in time and memory."""
