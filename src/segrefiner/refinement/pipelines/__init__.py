"""The ways of masks through a photo: views, canvas and acceptance of the default pipeline, and the published pipelines.

Nothing of the folder above is imported here: no file is read, no model chosen, no report written.
"""
