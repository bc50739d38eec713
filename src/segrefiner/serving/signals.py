"""A second SIGINT or SIGTERM ends the server, whatever it is doing.

Python runs signal handlers between two of its own instructions. A process that reads a device, or computes in C, never
comes to them. The system's part of a handler runs all the same and writes the signal's number into a pipe. At its
other end a small process counts, and kills this one when it has had its time.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_WATCHMAN = """
import os, select, signal, sys
parent, seconds = int(sys.argv[1]), float(sys.argv[2])
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, signal.SIG_IGN)
asked = 0
while asked < 2:
    numbers = os.read(0, 64)
    if not numbers:
        sys.exit()
    asked += sum(number in (signal.SIGINT, signal.SIGTERM) for number in numbers)
while select.select([0], [], [], seconds)[0]:
    if not os.read(0, 64):
        sys.exit()
    seconds = 0.5
os.kill(parent, signal.SIGKILL)
"""


@contextmanager
def killed_after_second_signal(seconds: float) -> Iterator[None]:
    """While this lasts, the process ends that long after its second SIGINT or SIGTERM, at the latest.

    Signals come to the main thread of a program; elsewhere, and on Windows, this does nothing.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    program = [sys.executable, "-S", "-E", "-c", _WATCHMAN, str(os.getpid()), str(seconds)]
    with subprocess.Popen(program, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        os.close(reading)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writing)
