"""What other libraries found in a photo, and how its masks are taken out and put back.

Outputs are told by their shape: no other library is imported here, and none needs to be installed.
"""
