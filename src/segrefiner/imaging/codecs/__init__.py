"""From a file's bytes to the values of a photo, a mask or a label map.

Only decoding and what the values mean: nothing here cuts, compares or draws.
"""
