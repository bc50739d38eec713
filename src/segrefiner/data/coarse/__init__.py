"""Coarse masks made from true ones, in memory and as files.

True masks and photos come from above: nothing here finds or reads a data set.
"""
