"""Tools for agents, by the Model Context Protocol: what they may touch, what they do, and how it is told.

Requests are bounded as those of the HTTP API are; what is refined, `refinement` decides.
"""
