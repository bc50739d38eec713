"""Laws of the paper's coarse masks, and of making them for whole data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from helpers import miniature
from segrefiner.cli.main import main
from segrefiner.data.coarse.files import KINDS, coarse_sheet, make_coarse, write_coarse
from segrefiner.data.coarse.grabcut import grabcut_coarse
from segrefiner.data.coarse.published import _dilated, _structure, published_coarse
from segrefiner.data.layouts import open_source
from segrefiner.errors import InputError
from segrefiner.imaging.reading import read_mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def shape(seed: int, size: int = 160) -> np.ndarray:
    """A wobbly object with a hole."""
    rows, columns = np.mgrid[:size, :size] - size / 2
    random = np.random.default_rng(seed)
    angle = np.arctan2(rows, columns)
    radius = size * (0.3 + 0.05 * np.sin(random.integers(2, 7) * angle + random.random()))
    distance = np.hypot(rows, columns)
    return (distance < radius) & (distance > size * 0.08)


def photo(truth: np.ndarray) -> np.ndarray:
    """The object's colours vary, and some of them are the ground's, too."""
    random = np.random.default_rng(1)
    cells = np.add(*np.mgrid[: truth.shape[0], : truth.shape[1]]) // 24 % 3
    colours = np.array([[200, 80, 60], [180, 110, 40], [90, 120, 150]])[cells]
    image = np.where(truth[..., None], colours, [80, 120, 160]) + random.normal(0, 12, (*truth.shape, 3))
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_masks_agree_with_the_truth_as_little_as_asked_for(seed: int) -> None:
    truth = shape(seed)
    for target in (0.8, 0.6):
        coarse = published_coarse(truth, np.random.default_rng(seed), iou=target)
        assert target - 0.15 < iou(coarse, truth) < target
        assert coarse.shape == truth.shape and coarse.dtype == bool
    # Contours have moved; what lies far from them is as it was but for the few pixels that were set.
    far = np.abs(ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)) > 30
    assert (published_coarse(truth, np.random.default_rng(seed)) != truth)[far].mean() < 0.05


def test_the_generator_decides_everything() -> None:
    truth = shape(0)
    a, b, c = (published_coarse(truth, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (9, 40), (40, 9)])
def test_no_mask_becomes_empty(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for seed in range(10):
        truth = np.zeros(size, bool)
        truth[random.integers(size[0]), random.integers(size[1])] = True
        before = truth.copy()
        assert published_coarse(truth, np.random.default_rng(seed)).any()
        assert np.array_equal(truth, before)
    for value in (False, True):
        whole = np.full(size, value)
        assert np.array_equal(published_coarse(whole, random), whole)


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_dilation_is_scipy_s(size: int, kind: int) -> None:
    element = _structure(size, kind)
    reach = max([abs(offset) for offset, _ in element] + [half for _, half in element])
    footprint = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    for offset, half in element:
        footprint[reach + offset, reach - half : reach + half + 1] = True
    mask = np.random.default_rng(0).random((30, 25)) < 0.03
    np.testing.assert_array_equal(_dilated(mask, element), ndimage.binary_dilation(mask, footprint))
    assert _dilated(mask[:1], element).shape == (1, 25)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_coarse_and_follows_its_seed(kind: str) -> None:
    for truth in (shape(3), shape(4, 1300)[:, :900]):
        image = photo(truth)
        coarse = make_coarse(image, truth, kind, 5)
        assert coarse.shape == truth.shape and 0.3 < iou(coarse, truth) < 0.995
        assert np.array_equal(coarse, make_coarse(image, truth, kind, 5))
        assert any(not np.array_equal(coarse, make_coarse(image, truth, kind, seed)) for seed in (6, 7, 8))


def test_grabcut_follows_the_photo_s_colours() -> None:
    truth = shape(3)
    image = photo(truth)
    # Ground of the object's own colour beside it is taken for a part of it; ground of another colour never is.
    rows, columns = np.nonzero(truth)
    beside = np.zeros_like(truth)
    beside[80 : rows.max() + 1, 80 : columns.max() + 1] = True
    beside &= ~truth & (np.hypot(*(np.mgrid[:160, :160] - 80)) > 20)
    shadowed = image.copy()
    shadowed[beside] = (200, 80, 60)
    plain, taken = ([grabcut_coarse(p, truth, seed)[beside].mean() for seed in range(8)] for p in (image, shadowed))
    assert max(plain) < 0.2 < 0.5 < max(taken)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 40), (400, 700)])
def test_grabcut_leaves_no_mask_empty(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    for truth in (np.ones(size, bool), random.random(size) < 0.5):
        truth[0, 0] = True
        for seed in range(4):
            assert make_coarse(image, truth, "grabcut", seed).any()


@pytest.mark.slow
def test_masks_of_a_data_set_are_made_once_whatever_the_workers(tmp_path: Path) -> None:
    source = open_source(miniature.folder(tmp_path / "own", coarse=False))
    for name, workers in (("one", 0), ("two", 2)):
        assert write_coarse(source, tmp_path / name, workers=workers) == (4, [])
    for path in sorted((tmp_path / "one").glob("*.png")):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    (tmp_path / "one" / "own2.png").unlink()
    stamp = (tmp_path / "one" / "own1.png").stat().st_mtime_ns
    assert write_coarse(source, tmp_path / "one", workers=0) == (1, [])
    assert (tmp_path / "one" / "own1.png").stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match=r"'seed': 0.*'seed': 7"):
        write_coarse(source, tmp_path / "one", seed=7)
    with pytest.raises(InputError, match="published, ours"):
        write_coarse(source, tmp_path / "three", kind="theirs")
    sheet = coarse_sheet(source, tmp_path / "one")
    assert sheet.shape == (256, 6 * 256, 3) and (sheet != 255).any()
    # They are what training finds.
    assert open_source(tmp_path / "own", tmp_path / "one").read(0).coarse is not None


def test_the_command_lists_what_failed_and_goes_on(tmp_path: Path) -> None:
    root = miniature.folder(tmp_path / "own", coarse=False)
    (root / "masks" / "own1.png").write_bytes(b"broken")
    options = ["-o", str(root / "coarse_made"), "--workers", "0", "--kind", "ours", "--sheet", str(tmp_path / "s.png")]
    done = CliRunner().invoke(main, ["data", "coarse", str(root), *options])
    assert done.exit_code == 3 and "3 coarse masks written, 0 were there" in done.stdout and "own1.png" in done.stderr
    assert json.loads((root / "coarse_made" / "coarse.json").read_text()) == {"kind": "ours", "seed": 0}
    _, truth = miniature.scene(30)
    assert 0.3 < iou(read_mask(root / "coarse_made" / "own0.png"), truth) < 1
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (1536, 256)
    again = CliRunner().invoke(main, ["data", "coarse", str(root), *options])
    assert again.exit_code == 3 and "0 coarse masks written, 3 were there" in again.stdout
