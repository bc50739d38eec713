"""Composed training photos: cut-outs and thin structures on backgrounds, with exact masks.

No data set's layout is known here.
"""
