"""Training photos: sources, layouts, packs and crops.

No network is run or trained here, and no refinement is known.
"""
