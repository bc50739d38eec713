"""Refining in a process that was forked from another one.

A fork copies the memory of a process but none of its threads. PyTorch would hand its work to threads that are not
there, and wait for ever.
"""

import os

import torch

from .. import environment
from ..errors import InputError

_ADVICE = 'start processes with multiprocessing.get_context("spawn"), or load a refiner in each of them'

_first = _home = os.getpid()
"""The process in which PyTorch's threads are there, as far as this module knows."""


def use_threads() -> None:
    """Let PyTorch compute with as many threads as `SEGREFINER_THREADS` says, except in a process that was forked.

    Raises:
        InputError: The variable holds no such number.
    """
    threads = environment.threads()
    if threads and os.getpid() == _first:
        torch.set_num_threads(threads)


def revive(device: torch.device) -> None:
    """Make PyTorch compute in a process that was forked: on the CPU, from then on, by one thread.

    Raises:
        InputError: The device is CUDA and was in use before the fork, which it does not survive.
    """
    global _home
    if os.getpid() == _home:
        return
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise InputError(f"CUDA was in use in the process that this one was forked from: {_ADVICE}")
    torch.set_num_threads(1)
    _home = os.getpid()


def check_own(process: int, backend: object) -> None:
    """Raise `InputError` for a backend with threads of its own that was opened in the process before a fork."""
    if os.getpid() != process:
        name = type(backend).__name__
        raise InputError(
            f"{name} was opened in the process that this one was forked from, where its threads are: {_ADVICE}"
        )
