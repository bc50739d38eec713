"""Label maps: files keep what they are, and the joint decision leaves neither gaps nor overlaps."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segrefiner.errors import InputError, MaskError
from segrefiner.label_files import LabelMap, read_ids, read_labels, write_ids, write_labels
from segrefiner.labels import refine_labels

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
PHOTO = np.zeros((12, 16, 3), np.uint8)


class Stub:
    """Gives every mask random probabilities, or those of a function of mask and number."""

    def __init__(self, give: Any) -> None:
        self.give = give

    def many(self, pairs: Any, **options: Any) -> Iterator[Any]:
        for _, mask in pairs:
            probability = np.asarray(self.give(mask), np.float32)
            yield SimpleNamespace(probability=probability, mask=probability >= 0.5, report=None)


def noise(mask: np.ndarray) -> np.ndarray:
    """Random probabilities that are a function of the mask."""
    random = np.random.default_rng(int(np.packbits(mask).astype(int) @ np.arange(1, 25)))
    return random.random(mask.shape)


def random_map(seed: int, labels: int, dtype: Any = np.uint8) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.kron(random.integers(0, labels, (3, 4)), np.ones((4, 4), int)).astype(dtype)


@QUICK
@given(st.integers(0, 999), st.integers(1, 6), st.sampled_from([np.uint8, np.uint16, np.int32]))
def test_every_pixel_has_one_of_the_labels_and_ignored_ones_stay(seed: int, labels: int, dtype: Any) -> None:
    coarse = random_map(seed, labels, dtype)
    before = coarse.copy()
    refined = refine_labels(Stub(noise), PHOTO, coarse, ignore=[1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(coarse, before)
    assert refined.labels.dtype == dtype and refined.labels.shape == coarse.shape
    assert set(np.unique(refined.labels)) <= set(np.unique(coarse))
    np.testing.assert_array_equal(refined.labels == 1, coarse == 1)
    assert refined.changed == pytest.approx(np.mean(refined.labels != coarse))
    present = set(np.unique(coarse[coarse != 1]).tolist())
    assert set(refined.vanished) == present - set(np.unique(refined.labels).tolist())


@QUICK
@given(st.integers(0, 999))
def test_two_labels_are_the_object_s_mask(seed: int) -> None:
    coarse = np.zeros((12, 16), np.uint8)
    coarse[3:9, 4:12] = 7
    stub = Stub(lambda mask: np.random.default_rng(seed).random(mask.shape))
    refined = refine_labels(stub, PHOTO, coarse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels == 7, np.random.default_rng(seed).random((12, 16)) > 0.5)
    assert set(refined.reports) == {7}


def test_where_nothing_is_sure_the_coarse_labels_stay() -> None:
    coarse = random_map(3, 2)
    refined = refine_labels(Stub(lambda mask: np.full(mask.shape, 0.5)), PHOTO, coarse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(refined.labels, coarse)


def test_a_label_that_loses_all_its_pixels_is_reported() -> None:
    coarse = np.zeros((12, 16), np.uint8)
    coarse[2:5, 2:5], coarse[7:11, 7:14] = 3, 9
    stub = Stub(lambda mask: mask * (0.9 if mask[8, 8] else 0.1))
    refined = refine_labels(stub, PHOTO, coarse)  # type: ignore[arg-type]
    assert refined.vanished == (3,) and not (refined.labels == 3).any()
    np.testing.assert_array_equal(refined.labels == 9, coarse == 9)


@QUICK
@given(st.integers(0, 999))
def test_values_of_labels_do_not_matter(seed: int) -> None:
    coarse = random_map(seed, 4)
    names = np.random.default_rng(seed).permutation(4).astype(np.uint8)
    one = refine_labels(Stub(noise), PHOTO, coarse).labels  # type: ignore[arg-type]
    other = refine_labels(Stub(noise), PHOTO, names[coarse]).labels  # type: ignore[arg-type]
    border = np.concatenate([coarse[0], coarse[-1], coarse[:, 0], coarse[:, -1]])
    counts = np.sort(np.bincount(border, minlength=4))
    if counts[-1] > counts[-2]:  # else the background is a matter of names
        np.testing.assert_array_equal(names[one], other)


def test_what_is_no_label_map_is_refused() -> None:
    for labels in (np.zeros((12, 16)), np.zeros((2, 12, 16), int), np.zeros((5, 5), int)):
        with pytest.raises(InputError):
            refine_labels(Stub(noise), PHOTO, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_files_come_back(dtype: Any, tmp_path: Path) -> None:
    labels = random_map(0, 5, dtype) * (dtype(50) if dtype == np.uint8 else dtype(9000))
    write_labels(tmp_path / "labels.png", LabelMap(labels))
    read = read_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(read.labels, labels)
    assert read.labels.dtype == dtype and read.palette is None


def test_palettes_are_kept(tmp_path: Path) -> None:
    labels = random_map(0, 5)
    colours = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette(colours.tobytes(), "RGB")
    picture.save(tmp_path / "given.png")
    write_labels(tmp_path / "written.png", read_labels(tmp_path / "given.png"))
    with Image.open(tmp_path / "given.png") as given, Image.open(tmp_path / "written.png") as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), labels)
        np.testing.assert_array_equal(np.asarray(written.convert("RGB")), np.asarray(given.convert("RGB")))


def test_colours_are_no_labels_and_grey_is_no_id(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "colour.png")
    Image.fromarray(PHOTO[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(MaskError, match="RGB"):
        read_labels(tmp_path / "colour.png")
    with pytest.raises(MaskError, match="mode L"):
        read_ids(tmp_path / "grey.png")


def test_ids_come_back(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 255], [256, 65_536, 256**3 - 1]], np.int32)
    write_ids(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "ids.png"), ids)
    with Image.open(tmp_path / "ids.png") as picture:
        assert picture.getpixel((0, 1)) == (0, 1, 0)
