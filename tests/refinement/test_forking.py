"""A refiner works in a process that was forked from one that has refined, or says why it cannot."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from segrefiner import InputError, Refiner
from segrefiner.model.unet import UNetConfig
from segrefiner.refinement.forking import revive

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")

CODE = """
import multiprocessing, sys
import numpy as np
import torch
from segrefiner import InputError, Refiner

torch.set_num_threads(2)
photo = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
mask = np.zeros((64, 80), bool)
mask[20:50, 20:60] = True


def child(refiner, queue):
    try:
        queue.put((refiner or Refiner.from_pretrained())(photo, mask, steps=1).probability)
    except InputError as error:
        queue.put(str(error))


def forked(refiner):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(refiner, queue), daemon=True)
    process.start()
    return queue.get(timeout=60)
"""


def run(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE + code],
        capture_output=True, text=True, timeout=120, cwd=TESTS, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_refiner_works_after_a_fork_wherever_it_was_loaded() -> None:
    said = run("""
refiner = Refiner.from_pretrained()
before = refiner(photo, mask, steps=1).probability
for given in (refiner, None):
    np.testing.assert_allclose(forked(given), before, atol=0.02)
np.testing.assert_array_equal(refiner(photo, mask, steps=1).probability, before)
print("the same", torch.get_num_threads())


class Refined(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return [result.probability for result in refiner.many([(photo, mask)] * 2, steps=1)]


for batch in torch.utils.data.DataLoader(Refined(), num_workers=1, multiprocessing_context="fork", timeout=60):
    for probability in batch:
        np.testing.assert_allclose(probability[0], before, atol=0.02)
""")
    assert said.strip() == "the same 2"


class Elsewhere:
    """A backend with threads of its own."""

    config, device, dtype = UNetConfig(), torch.device("cpu"), torch.float32

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


def test_a_backend_that_does_not_survive_a_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    photo, mask = np.zeros((32, 32, 3), np.uint8), np.eye(32, dtype=bool)
    refiner = Refiner(Elsewhere())
    refiner(photo, mask)
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    with pytest.raises(InputError, match=r"Elsewhere was opened in the process .*spawn"):
        refiner(photo, mask)


def test_cuda_that_was_in_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    with pytest.raises(InputError, match=r"CUDA was in use .*spawn"):
        revive(torch.device("cuda"))
