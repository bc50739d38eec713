"""What people look at: Markdown, HTML, SVG, comparison pictures and cut-outs.

No figure is computed here, and no network is known.
"""
