"""Many photos: jobs that can be killed and run again, and the engines that run them.

No metric and no training; what one refinement does is `refinement`'s.
"""
