"""Annotation files of other programs, read into items and written back with everything unknown kept.

One reader for each format, for jobs, data and evaluation alike; no job, no source and no metric.
"""
