"""Recipes, the loop, its monitoring and the report of a run.

No command-line option and no server.
"""
