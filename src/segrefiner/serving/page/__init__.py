"""The page in the browser.

Nothing is refined here but through the service's worker.
"""
