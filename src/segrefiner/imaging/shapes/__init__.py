"""Contours of masks: lines along them, distances to them, and polygons that draw them."""
