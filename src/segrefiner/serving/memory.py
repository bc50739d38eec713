"""Gives memory that was freed back to the system, so that a server stays as small as what it holds."""

import ctypes
import sys
from functools import lru_cache
from typing import Any


def give_back_freed() -> None:
    """Give pages without anything in use back to the system; does nothing where the C library has no way to.

    glibc keeps what threads freed for them, and among photos of different sizes hardly any of it fits the next one:
    under a mix of good and hostile requests a server of 0.5 GiB grew to 1.1 (`python -m benchmarks.service.abuse`).
    """
    if (trim := _trim()) is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None).malloc_trim  # glibc's; musl has none
    except (OSError, AttributeError):
        return None
