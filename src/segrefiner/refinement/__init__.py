"""The method: objects, views, canvas, acceptance and report; `Refiner` and what is built on it.

No job, no metric, no training and no server.
"""
