"""The HTTP API, its client, and the page.

No training and no evaluation; what is refined, `refinement` decides.
"""
