"""Foreign files decoded within bounds, of memory and time as their pixels may take, in processes that can be killed.

A decoder is C, and cannot be interrupted. `within_limits` bounds what goes on in a process that said
`guard_this_process`: beyond its memory an allocation fails, and beyond its processor time the system ends the process.
`Decoder` keeps such processes. They get a function and its arguments, and answer JSON and plain arrays, so that even a
decoder that was taken over by its file has no way into the process that asked.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ... import errors
from ...errors import InputError

_BASE_BYTES, _BYTES_PER_PIXEL = 256 << 20, 48
"""What a decoder may take beside what is there already: two copies of RGBA with 16 bits, and what makes them."""

_BASE_SECONDS, _SECONDS_PER_MEGAPIXEL = 0.75, 0.5
"""Of the processor. The slowest decoders that are used take a tenth of a second for a megapixel."""

_WALL_SECONDS, _WALL_FACTOR = 30.0, 4.0
"""By the clock, for machines that have much else to do."""

_LONGEST_FAULT = 4000
_LENGTH = struct.Struct("<Q")

_guarded: int | None = None
_inside = False


class KilledError(Exception):
    """A process was ended at its limits, or died."""


def guard_this_process(max_pixels: int) -> None:
    """Make `within_limits` bound this process, which may be ended by it.

    Args:
        max_pixels: More are not granted to any file, whatever its header says.
    """
    global _guarded
    _guarded = max_pixels
    with contextlib.suppress(ImportError, AttributeError):
        # Its threads would each take address space of their own.
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@contextmanager
def within_limits(pixels: int | None) -> Iterator[None]:
    """Bound memory and processor time while a picture is decoded, if this process is guarded.

    Args:
        pixels: Of the picture, by its header; `None` where that is not known.
    """
    global _inside
    if _guarded is None or _inside or sys.platform == "win32":
        yield
        return
    import resource

    granted = _guarded if pixels is None else min(pixels, _guarded)
    _inside, before = True, resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + _BASE_BYTES + _BYTES_PER_PIXEL * granted
    try:
        if sys.platform == "linux":
            hard = before[1]
            resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        signal.setitimer(signal.ITIMER_PROF, seconds_for(granted))
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        _inside = False


def seconds_for(pixels: float) -> float:
    """Processor time that decoding so many pixels may take."""
    return _BASE_SECONDS + _SECONDS_PER_MEGAPIXEL * pixels / 1e6


def _address_space() -> int:
    try:
        with open("/proc/self/statm", "rb") as stream:
            return int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Decoder:
    """Processes that decode.

    Args:
        workers: How many. So many calls of `run` go on at the same time; others wait.
        max_pixels: The most pixels that a picture may have; memory and time are bounded for that many.
    """

    def __init__(self, workers: int, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(max_pixels) for _ in range(workers)]
        for worker in self._all:
            self._idle.put(worker)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in one of the processes.

        Args:
            function: Of a module that the process can import. It gives JSON, arrays, and lists of them.
            *arguments: Can be pickled.

        Raises:
            InputError: The function's own.
            KilledError: The process was ended by its limits.
            RuntimeError: The function failed in another way.
        """
        worker = self._idle.get()
        try:
            return worker.call(function, arguments)
        finally:
            self._idle.put(worker)

    def wait(self) -> None:
        """Wait until the processes can be called without delay."""
        for worker in self._all:
            worker.call(len, ((),))

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.end()


class _Worker:
    """One process, and another in its place when it was ended."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels, self._closed = max_pixels, False
        self._process = self._start()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        if self._process.poll() is not None:
            self._replace()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        # By the clock it has more time, since it may have to wait for a processor.
        clock = threading.Timer(_WALL_SECONDS + _WALL_FACTOR * seconds_for(self._max_pixels), process.kill)
        clock.start()
        try:
            _write(process.stdin, pickle.dumps((function, arguments), protocol=5))
            answer = json.loads(_read(process.stdout))
            arrays = [_read_array(process.stdout, *shape) for shape in answer["arrays"]]
        except (OSError, EOFError, ValueError) as error:
            self._replace()
            raise KilledError from error
        finally:
            clock.cancel()
        if "error" in answer:
            kind: Any = getattr(errors, answer["error"], RuntimeError)
            raise kind(answer["message"])
        return _filled(answer["value"], arrays)

    def end(self) -> None:
        self._closed = True
        _end(self._process)

    def _replace(self) -> None:
        _end(self._process)
        if not self._closed:
            self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from segrefiner.imaging.codecs.decoder_process import work; "
            f"work({self._max_pixels})"
        )
        environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # What decoders print is nobody's: a file must not fill the log.
        return subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )


def work(max_pixels: int) -> None:
    """Serve as a decoder's process until the pipe is closed."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # The process that asks says when this one ends.
    given, taken = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    guard_this_process(max_pixels)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.loads(_read(given))
            arrays: list[Any] = []
            try:
                answer: dict[str, Any] = {"value": _emptied(function(*arguments), arrays)}
            except InputError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            except MemoryError:
                break
            except Exception as error:
                text = "".join(traceback.format_exception(error))
                answer = {"error": "RuntimeError", "message": text[-_LONGEST_FAULT:]}
            shapes = [(array.dtype.str, array.shape) for array in arrays] if "value" in answer else []
            _write(taken, json.dumps({**answer, "arrays": shapes}).encode())
            for array in arrays if shapes else ():
                taken.write(array.tobytes())
            taken.flush()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _emptied(value: Any, arrays: list[Any]) -> Any:
    """JSON, in which each array is its number in a list."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return [_emptied(one, arrays) for one in value]
    return value


def _filled(value: Any, arrays: list[Any]) -> Any:
    """The inverse of `_emptied`."""
    if isinstance(value, dict):
        return arrays[value["array"]]
    return [_filled(one, arrays) for one in value] if isinstance(value, list) else value


def _write(stream: Any, content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _read(stream: Any) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: Any, length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return bytes(content)


def _read_array(stream: Any, dtype: str, shape: list[int]) -> Any:
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError(f"{dtype} is no type of pixels")
    array = np.empty(shape, kind)
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    while view.nbytes:
        got = stream.readinto(view)
        if not got:
            raise EOFError
        view = view[got:]
    return array
