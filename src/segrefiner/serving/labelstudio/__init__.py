"""Label Studio's contract for ML backends: its tasks, the photos that it serves, and the routes that it calls.

What annotation files look like, `formats` knows; what is refined, `refinement` decides.
"""
