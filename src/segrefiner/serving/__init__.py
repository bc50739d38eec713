"""The HTTP API, its client, the page, the backend for Label Studio, and tools for agents.

No training and no evaluation; what is refined, `refinement` decides.
"""
