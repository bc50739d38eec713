"""Freed memory goes back to the system."""

import subprocess
import sys

import pytest

from segrefiner.serving.memory import _trim, give_back_freed

PROGRAM = """
from pathlib import Path
from segrefiner.serving.memory import give_back_freed

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

blocks = [bytearray(8000) for _ in range(20_000)]
# One in a hundred stays, so that no end of the heap is free.
blocks = blocks[::100]
before = resident()
give_back_freed()
print(before - resident())
"""


@pytest.mark.skipif(_trim() is None, reason="not glibc")
def test_memory_between_blocks_in_use_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 100  # of 160 MiB


def test_it_does_nothing_where_the_c_library_has_no_way_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    _trim.cache_clear()
    try:
        give_back_freed()
        assert _trim() is None
    finally:
        _trim.cache_clear()
