"""`Refiner`: what goes in, what comes out, and one real photo with a bound on its quality."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segrefiner
from helpers.tiny import TINY
from segrefiner import CheckpointError, InputError, Refiner, Result, SizeMismatchError
from segrefiner.evaluation.metrics import iou, mba
from segrefiner.imaging.reading import Photo, read_mask, read_photo
from segrefiner.model.backends import choose_device, choose_dtype
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import load, resolve, save
from segrefiner.refinement.pipelines.published import instance_pipeline, semantic_pipeline

PHOTOS = Path(__file__).parents[1] / "data" / "parity"


@pytest.fixture(scope="module")
def bundled() -> Refiner:
    return Refiner.from_pretrained()


@pytest.fixture(scope="module")
def car(bundled: Refiner) -> Result:
    """What the bundled model makes of a real mask."""
    return bundled(PHOTOS / "car208_0007.jpg", PHOTOS / "car208_0007_coarse.png")


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny")


def square(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return mask


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_real_mask_gets_better(car: Result) -> None:
    coarse, truth = (read_mask(PHOTOS / f"car208_0007_{kind}.png") for kind in ("coarse", "truth"))
    result = car
    assert iou(result.mask, truth) > iou(coarse, truth) + 0.05
    assert mba(result.mask, truth) > mba(coarse, truth) + 0.08
    assert result.mask.shape == truth.shape and result.mask.dtype == bool
    assert result.probability.dtype == np.float32
    np.testing.assert_array_equal(result.mask, result.probability >= 0.5)
    report = result.report
    assert report.changed == pytest.approx(np.mean(result.mask != coarse))
    assert report.agreement == pytest.approx(iou(result.mask, coarse))
    assert report.model == "compact" and report.seed == 0 and report.steps == 1
    assert 0 < report.confidence <= 1 and report.seconds > 0 and report.evaluations >= 1


def test_every_form_of_one_input_gives_the_same_result(tiny: Refiner, tmp_path: Path) -> None:
    photo, mask = noise(70, 90), square(70, 90)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    expected = tiny(photo, mask)
    images = [tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(photo), photo]
    masks = [
        tmp_path / "mask.png",
        Image.fromarray(mask),
        mask.astype(np.uint8),
        mask.astype(np.uint8) * 255,
        mask * 0.8,
        torch.from_numpy(mask),
    ]
    for image, given in [*((i, mask) for i in images), *((photo, m) for m in masks)]:
        np.testing.assert_array_equal(tiny(image, given).probability, expected.probability)


def test_same_seed_same_result_and_no_global_randomness(bundled: Refiner) -> None:
    photo, mask = PHOTOS / "car208_0007.jpg", PHOTOS / "car208_0007_coarse.png"
    before = torch.random.get_rng_state()
    first, again, other = (bundled(photo, mask, seed=seed, steps=3) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(first.probability, again.probability)
    assert (first.probability != other.probability).any()


@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
@pytest.mark.parametrize("shape", [(40, 50), (1, 1)])
def test_masks_without_contour_come_back_and_say_so(tiny: Refiner, shape: tuple[int, int], full: bool) -> None:
    mask = np.full(shape, full)
    result = tiny(noise(*shape), mask)
    np.testing.assert_array_equal(result.mask, mask)
    assert "returned as it is" in str(result.report)
    assert result.report.changed == 0 and result.report.evaluations == 0


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (2, 2), (3, 700), (30, 31), (257, 255)])
def test_odd_shapes(tiny: Refiner, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask.flat[: mask.size // 2] = True
    result = tiny(noise(*shape), mask, steps=2)
    assert result.mask.shape == shape
    assert result.mask.any()


def test_users_can_ask_for_restraint(bundled: Refiner, car: Result) -> None:
    photo, mask = PHOTOS / "car208_0007.jpg", PHOTOS / "car208_0007_coarse.png"
    coarse, free = read_mask(mask), car
    assert free.report.largest_shift > 5
    near = bundled(photo, mask, max_shift=5)
    assert near.report.largest_shift <= 5 and near.report.too_far > 0
    assert not ((near.mask != coarse) & (free.mask == coarse)).any()
    np.testing.assert_array_equal(bundled(photo, mask, strength=0).mask, coarse)
    assert 0 < bundled(photo, mask, strength=0.3).report.changed < free.report.changed


def test_a_refined_mask_needs_no_refinement(bundled: Refiner, car: Result) -> None:
    again = bundled(PHOTOS / "car208_0007.jpg", car.mask)
    assert iou(again.mask, car.mask) > 0.995


def test_specks_survive(bundled: Refiner) -> None:
    photo = np.asarray(Image.open(PHOTOS / "CCP_0016.jpg"))
    for side in (1, 3, 9):
        mask = np.zeros(photo.shape[:2], bool)
        mask[400 : 400 + side, 270 : 270 + side] = True
        assert bundled(photo, mask, steps=1).mask.any()


def test_wrong_input_is_refused(tiny: Refiner) -> None:
    photo = noise(40, 50)
    with pytest.raises(SizeMismatchError, match=r"50x39.*50x40"):
        tiny(photo, square(39, 50))
    with pytest.raises(InputError, match="steps is 7"):
        tiny(photo, square(40, 50), steps=7)
    with pytest.raises(InputError, match="seed is -1"):
        tiny(photo, square(40, 50), seed=-1)
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="strength"):
            tiny(photo, square(40, 50), strength=strength)
    for shift in (-1, math.nan):
        with pytest.raises(InputError, match="max_shift"):
            tiny(photo, square(40, 50), max_shift=shift)
    with pytest.raises(InputError, match="threshold"):
        tiny(photo, np.arange(2000).reshape(40, 50) % 200)


def test_published_pipelines_run(tiny: Refiner) -> None:
    for pipeline in (semantic_pipeline, instance_pipeline):
        refiner = Refiner(tiny.backend, pipeline=pipeline)
        result = refiner(noise(300, 280), square(300, 280))
        assert result.mask.shape == (300, 280)
        assert result.report.evaluations >= 5
        with pytest.raises(InputError, match="fixed steps"):
            refiner(noise(300, 280), square(300, 280), steps=2)
    with pytest.raises(InputError, match="256 pixels"):
        Refiner(tiny.backend, pipeline=semantic_pipeline)(noise(200, 300), square(200, 300))


def test_devices_and_dtypes() -> None:
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype("fp32", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(InputError, match="toaster"):
        choose_device("toaster")
    with pytest.raises(InputError, match="fp8"):
        choose_dtype("fp8", cpu)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA"):
            choose_device("cuda")


def test_a_pytorch_that_does_not_say_what_the_processor_has_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32


def test_bfloat16_agrees_with_float32() -> None:
    photo, mask = PHOTOS / "CCP_0016.jpg", PHOTOS / "CCP_0016_coarse.png"
    network = load(resolve(None))
    masks = [Refiner(network, dtype=d)(photo, mask).mask for d in (torch.float32, torch.bfloat16)]
    assert iou(*masks) > 0.99


def test_the_version_is_the_package_s() -> None:
    from importlib.metadata import version

    assert segrefiner.__version__ == version("segrefiner")


def test_the_steps_are_those_that_the_weights_name(tmp_path: Path) -> None:
    network, photo, mask = DenoisingUNet(TINY), noise(40, 50), square(40, 50)
    save(network, tmp_path / "silent.safetensors")
    save(network, tmp_path / "two.safetensors", metadata={"steps": "2"})
    save(network, tmp_path / "odd.safetensors", metadata={"steps": "7"})
    assert Refiner.from_pretrained(tmp_path / "silent.safetensors")(photo, mask).report.steps == 6
    two = Refiner.from_pretrained(tmp_path / "two.safetensors")
    assert two(photo, mask).report.steps == 2
    assert two(photo, mask, steps=3).report.steps == 3
    published = Refiner.from_pretrained(tmp_path / "two.safetensors", pipeline=instance_pipeline)
    assert published(photo, mask).report.steps == 6
    with pytest.raises(CheckpointError, match="steps = '7', expected 1 to 6"):
        Refiner.from_pretrained(tmp_path / "odd.safetensors")


def test_many_masks_give_what_calls_of_their_own_give(tiny: Refiner) -> None:
    photos = [noise(70, 90), noise(120, 100)]
    pairs = [(photos[0], square(70, 90)), (photos[0], np.zeros((70, 90), bool)), (photos[1], square(120, 100))]
    together = list(tiny.many(iter(pairs), seed=2, max_shift=6))
    assert len(together) == 3 and together[1].report.note
    for pair, result in zip(pairs, together, strict=True):
        alone = tiny(*pair, seed=2, max_shift=6)
        np.testing.assert_array_equal(result.probability, alone.probability)
        assert replace(result.report, seconds=0.0) == replace(alone.report, seconds=0.0)


def test_a_photo_of_many_masks_is_read_once(tiny: Refiner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(70, 90)).save(tmp_path / "photo.png")
    read: list[object] = []

    def spy(source: object) -> Photo:
        read.append(source)
        return read_photo(source)

    monkeypatch.setattr("segrefiner.refinement.pipelines.tasks.read_photo", spy)
    photo, masks = tmp_path / "photo.png", [square(70, 90)] * 3
    expected = [tiny(noise(70, 90), mask).mask for mask in masks]
    read.clear()
    # Equal paths, not the same object.
    results = list(tiny.many((Path(str(photo)), mask) for mask in masks))
    assert len(read) == 1
    for result, mask in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.mask, mask)


def test_more_masks_than_a_group_come_in_order(tiny: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segrefiner.refinement.pipelines.tasks._GROUP", 2)
    masks = [square(40 + i, 50) for i in range(5)]
    results = list(tiny.many((noise(*mask.shape), mask) for mask in masks))
    assert [result.mask.shape for result in results] == [mask.shape for mask in masks]
    assert list(tiny.many([])) == []


def test_wrong_pairs_are_refused_and_wrong_wishes_at_once(tiny: Refiner) -> None:
    with pytest.raises(InputError, match="steps is 9"):
        tiny.many([], steps=9)
    results = tiny.many([(noise(40, 50), square(40, 50)), (noise(40, 50), square(41, 50))])
    with pytest.raises(SizeMismatchError):
        list(results)


def test_one_bad_pair_takes_no_others_along(tiny: Refiner, tmp_path: Path) -> None:
    photo, mask = noise(40, 50), square(40, 50)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = tiny(photo, mask).mask
    bad: list[tuple[Any, Any]] = [
        (tmp_path / "missing.png", mask),
        (photo, tmp_path / "missing.png"),
        (photo, square(41, 50)),
        (photo, np.arange(2000).reshape(40, 50) % 200),
    ]
    for pair in bad:
        results = tiny.many([(photo, mask), (tmp_path / "photo.png", mask), pair, (photo, mask)])
        for _ in range(2):
            np.testing.assert_array_equal(next(results).mask, expected)
        with pytest.raises(InputError):
            next(results)

    def interrupted() -> Iterator[tuple[Any, Any]]:
        yield photo, mask
        raise KeyError("of the caller's own")

    results = tiny.many(interrupted())
    np.testing.assert_array_equal(next(results).mask, expected)
    with pytest.raises(KeyError, match="own"):
        next(results)


def test_a_photo_that_a_pipeline_refuses_takes_no_others_along(tiny: Refiner) -> None:
    refiner = Refiner(tiny.backend, pipeline=semantic_pipeline)
    results = refiner.many([(noise(256, 256), square(256, 256)), (noise(200, 300), square(200, 300))])
    assert next(results).mask.shape == (256, 256)
    with pytest.raises(InputError, match="256 pixels"):
        next(results)


def test_photos_are_the_same_by_identity_or_by_path_alone(tiny: Refiner, tmp_path: Path) -> None:
    photo, mask = noise(40, 50), square(40, 50)
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    forms: list[Any] = [
        photo,
        path,
        photo,
        torch.from_numpy(photo),
        str(path),
        Image.fromarray(photo),
        path.read_bytes(),
    ]
    expected = tiny(photo, mask).mask
    for result in tiny.many((form, mask) for form in forms):
        np.testing.assert_array_equal(result.mask, expected)


@pytest.mark.filterwarnings("error")
def test_tensors_of_any_kind_are_photos_and_masks(tiny: Refiner) -> None:
    photo, mask = noise(40, 50), square(40, 50)
    expected = tiny(photo, mask).probability
    pixels, plane = torch.from_numpy(photo), torch.from_numpy(mask)
    floats = (pixels.double() / 255).requires_grad_()
    for image in (
        pixels,
        pixels.permute(2, 0, 1),
        pixels.permute(2, 0, 1)[None],
        floats,
        floats.permute(2, 0, 1)[None],
    ):
        np.testing.assert_array_equal(tiny(image, mask).probability, expected)
    masks = [plane, plane[None], plane[None, None], plane.to_sparse(), torch._neg_view(-plane.double())]
    masks += [plane.to(dtype) for dtype in (torch.bfloat16, torch.float16, torch.uint8, torch.uint16, torch.int64)]
    masks += [plane.to(torch.float8_e4m3fn), plane.bfloat16().requires_grad_()]
    for given in masks:
        np.testing.assert_array_equal(tiny(photo, given).probability, expected)
    for result in tiny.instances(pixels, torch.stack([plane, plane]).bfloat16(), torch.tensor([[5.0, 5, 40, 35]] * 2)):
        assert result.mask.shape == (40, 50)
    with pytest.raises(InputError, match="cannot become a NumPy array"):
        tiny(photo, plane.to("meta"))


def test_arrays_are_read_however_they_lie_in_memory(tiny: Refiner) -> None:
    photo, mask = noise(40, 50), square(40, 50)
    expected = tiny(photo, mask).probability
    images: list[Any] = [np.asfortranarray(photo), photo[::-1][::-1], photo.astype(">u2") * 257, photo.tolist()]
    masks: list[Any] = [np.asfortranarray(mask), mask[:, ::-1][:, ::-1], mask.astype(">f4"), mask.astype(">i8")]
    masks += [mask.tolist(), tuple(map(tuple, mask.tolist())), memoryview(mask.astype(np.uint8))]
    for image in images:
        np.testing.assert_array_equal(tiny(image, mask).probability, expected)
    for given in masks:
        np.testing.assert_array_equal(tiny(photo, given).probability, expected)


def test_a_precision_that_the_weights_do_not_bear_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segrefiner.model.backends.choose_dtype", lambda name, device: torch.bfloat16)
    monkeypatch.setattr("segrefiner.model.backends.agree", lambda exact, other: False)
    assert Refiner.from_pretrained().dtype == torch.float32
    assert Refiner.from_pretrained(dtype="bf16").dtype == torch.bfloat16
