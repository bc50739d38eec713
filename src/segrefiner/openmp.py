"""How the threads wait that compute one operation together.

Between two parts of work, OpenMP's threads keep their cores busy for a while, so as to go on at once. A thread that
another process has taken the core from comes late at every one of a network's hundreds of meetings, and those that wait
for it take the core from it once more: beside one other busy process, a call can take tens of times as long. Threads
that sleep while they wait do not. OpenMP reads which it shall be once, when PyTorch is loaded, from the environment
variable `OMP_WAIT_POLICY`; what the user has set is kept.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_POLICY = "OMP_WAIT_POLICY"


def wait_policy() -> str:
    """What the user has set, else PASSIVE: threads sleep while they wait."""
    return os.environ.get(WAIT_POLICY, "PASSIVE")


def sleep_while_waiting() -> None:
    """Sets the policy for this process, if PyTorch is not loaded yet, and for all that it starts."""
    os.environ[WAIT_POLICY] = wait_policy()


@contextmanager
def sleeping_while_waiting() -> Iterator[None]:
    """Sets the policy for PyTorch where it is loaded in here, and leaves the environment as it was."""
    if "torch" in sys.modules or WAIT_POLICY in os.environ:
        yield
        return
    os.environ[WAIT_POLICY] = wait_policy()
    try:
        yield
    finally:
        os.environ.pop(WAIT_POLICY, None)
