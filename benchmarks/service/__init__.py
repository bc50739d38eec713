"""Jobs and the server under load."""
