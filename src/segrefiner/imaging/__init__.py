"""Photos, masks, label maps, boxes and their files.

No network and no policy: nothing here knows a model, a refinement or a report.
"""
