"""The HTTP API, its client, the page, and tools for agents.

No training and no evaluation; what is refined, `refinement` decides.
"""
