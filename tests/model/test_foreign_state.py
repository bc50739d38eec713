"""Whatever the program around has set in PyTorch, results are the same, and what it has set stays as it is."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tiny import TINY, TINY_WITH_ATTENTION
from segrefiner import Refiner
from segrefiner.model.backends import TorchBackend, agree
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import load, save
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.pipelines.published import instance_pipeline, semantic_pipeline
from segrefiner.refinement.video import refine_video

RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.integers(0, 256, (90, 70, 3), dtype=np.uint8)
MASK = np.zeros((90, 70), bool)
MASK[20:60, 15:50] = True
MASK[75:82, 5:20] = True
LARGE = np.kron(PHOTO[:64, :64], np.ones((4, 4, 1), np.uint8)), np.kron(MASK[:64, :64], np.ones((4, 4), bool))


@contextmanager
def set_to(setter: Callable[[Any], None], value: Any, before: Any) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float16": lambda: set_to(torch.set_default_dtype, torch.float16, torch.float32),
    "bfloat16": lambda: set_to(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float64": lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
    "device meta": lambda: torch.device("meta"),
    "default device meta": lambda: set_to(torch.set_default_device, "meta", None),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "grad": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic": lambda: set_to(torch.use_deterministic_algorithms, True, False),
    "anomaly": torch.autograd.detect_anomaly,
}


def answers(network: DenoisingUNet) -> list[np.ndarray]:
    """What every way of refining gives."""
    refiner = Refiner(network, name="tiny")
    found = [refiner(PHOTO, MASK, steps=2, seed=1, max_shift=20, strength=0.9).probability]
    found += [result.probability for result in refiner.instances(PHOTO, [MASK], [[2, 3, 66, 80]], steps=1)]
    found.append(refine_labels(refiner, PHOTO, MASK.astype(np.uint8), steps=1).labels)
    frames = [(name, PHOTO, MASK) for name in "ab"]
    found += [result.probability for _, result in refine_video(refiner, frames, smooth=0.5, steps=1)]
    found.append(Refiner(network, dtype=torch.bfloat16)(PHOTO, MASK, steps=1).probability)
    return found


def published_answers(network: DenoisingUNet) -> list[np.ndarray]:
    """What the published pipelines give."""
    pipelines = (semantic_pipeline, instance_pipeline)
    return [Refiner(network, pipeline=pipeline)(*LARGE, seed=1).probability for pipeline in pipelines]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("networks") / "tiny.safetensors"
    save(DenoisingUNet(TINY), path)
    return path


@pytest.fixture(scope="module")
def expected(path: Path) -> list[np.ndarray]:
    return answers(load(path))


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("state", STATES)
def test_foreign_state_changes_nothing_and_stays(path: Path, expected: list[np.ndarray], state: str) -> None:
    with STATES[state]():
        before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
        network = load(path)
        found = answers(network)
        assert agree(*(TorchBackend(network, torch.float32) for _ in range(2)))
        assert before == (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("state", ["float16", "device meta", "inference"])
def test_foreign_state_may_come_and_go_between_loading_and_use(
    path: Path, expected: list[np.ndarray], state: str
) -> None:
    with STATES[state]():
        network = load(path)
    found = answers(network)
    with STATES[state]():
        found += answers(load(path))
    for one, other in zip(found, [*expected, *expected], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("state", ["float16", "device meta"])
def test_published_pipelines_and_attention_know_no_foreign_state(path: Path, state: str) -> None:
    x, last = torch.rand(1, 4, 32, 32), torch.tensor([5])
    torch.manual_seed(0)
    attending = DenoisingUNet(TINY_WITH_ATTENTION).requires_grad_(False)
    expected, seen = published_answers(load(path)), attending(x, last)
    with STATES[state]():
        found = published_answers(load(path))
        again = attending(x, last)
    assert torch.equal(again, seen)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
