"""The environment variables of segrefiner: read, checked and explained in one place.

A variable that is empty counts as not set. What is said on the command line or by an argument goes before them.
`docs/command_line.md` lists them, with those of other libraries that take effect here.
"""

import os
import re
from pathlib import Path

from .errors import InputError

CACHE, DEVICE, OFFLINE, THREADS = (f"SEGREFINER_{name}" for name in ("CACHE", "DEVICE", "OFFLINE", "THREADS"))

_FLAGS = {"": False, "0": False, "false": False, "no": False, "off": False}
_FLAGS |= dict.fromkeys(("1", "true", "yes", "on"), True)
_MOST_THREADS = 1024
_DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?|mps", re.ASCII)


def cache_folder() -> Path | None:
    """The folder that `SEGREFINER_CACHE` names, for all downloads; `None` where it names none.

    Raises:
        InputError: Something else than a folder has that name.
    """
    text = os.environ.get(CACHE, "")
    if not text:
        return None
    try:
        folder = Path(text).expanduser().absolute()
        taken = folder.exists() and not folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{CACHE} is {text!r}, which names no folder: expected the path of one") from error
    if taken:
        raise InputError(f"{CACHE} is {text!r}, which is no folder: expected the path of one, or of one to be made")
    return folder


def device() -> str:
    """What the device "auto" means by `SEGREFINER_DEVICE`, "auto" where it says nothing.

    Raises:
        InputError: It says something else than auto, cpu, cuda, cuda:N or mps.
    """
    text = os.environ.get(DEVICE, "").strip()
    if text and not _DEVICES.fullmatch(text):
        raise InputError(f"{DEVICE} is {text!r}: expected auto, cpu, cuda, cuda:1 or mps")
    return text or "auto"


def is_offline() -> bool:
    """Whether `SEGREFINER_OFFLINE` forbids downloads.

    Raises:
        InputError: It says neither yes nor no.
    """
    text = os.environ.get(OFFLINE, "").strip()
    if text.lower() not in _FLAGS:
        raise InputError(f"{OFFLINE} is {text!r}: expected 1, true, yes or on, or else 0, false, no or off")
    return _FLAGS[text.lower()]


def threads() -> int | None:
    """With how many threads `SEGREFINER_THREADS` lets the CPU compute; `None` where it says nothing.

    Raises:
        InputError: It says no whole number from 1 to 1024.
    """
    text = os.environ.get(THREADS, "").strip()
    if not text:
        return None
    # Digits of other scripts and numbers of a million digits are digits to Python, too.
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= _MOST_THREADS:
        raise InputError(f"{THREADS} is {text!r}: expected a whole number from 1 to {_MOST_THREADS}")
    return int(text)


def check() -> None:
    """Check all of them. Raises `InputError` for the first that is wrong."""
    for read in (cache_folder, device, is_offline, threads):
        read()
