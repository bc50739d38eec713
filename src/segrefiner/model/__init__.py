"""The network, its diffusion, its weights, and what runs it.

Start with `diffusion`. Nothing here knows objects, views or a whole photo.
"""
