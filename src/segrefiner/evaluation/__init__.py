"""Metrics, published protocols, results and their report.

Nothing is refined or trained here: masks are read from files.
"""
