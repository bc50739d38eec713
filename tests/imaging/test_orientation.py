"""Masks of photos that an EXIF tag turns: made before or after, told by the photo where sizes do not tell."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segrefiner
from segrefiner.errors import MaskError, SizeMismatchError
from segrefiner.imaging.codecs.rasters import turned
from segrefiner.imaging.reading import Photo, check_fits, read_mask, read_photo

SAMPLES = Path(segrefiner.__file__).parent / "serving" / "page" / "samples"
NAMES = ("car", "man", "woman")
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes each."""


def sample(name: str, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo and its rough mask, upright; square where a quarter turn would show in the size."""
    photo, mask = np.asarray(Image.open(SAMPLES / f"{name}.jpg")), read_mask(SAMPLES / f"{name}_rough.png")
    side = min(mask.shape) if orientation >= 5 else None
    return photo[:side, :side], mask[:side, :side]


def before(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a file stores of an upright array."""
    return np.ascontiguousarray(turned(array, BACK[orientation]))


def with_tag(upright: np.ndarray, orientation: int, format: str = "JPEG") -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(before(upright, orientation)).save(stream, format, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_made_after_the_turn_fits_without_a_word(name: str, orientation: int) -> None:
    upright, mask = sample(name, orientation)
    photo = read_photo(with_tag(upright, orientation))
    assert photo.orientation == orientation and photo.pixels.shape == upright.shape
    assert check_fits(photo, mask) == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_made_before_the_turn_is_noticed(name: str, orientation: int) -> None:
    upright, mask = sample(name, orientation)
    photo = read_photo(with_tag(upright, orientation))
    try:
        (said,) = check_fits(photo, before(mask, orientation))
    except MaskError as error:
        said = str(error)
    assert "EXIF" in said and f"orientation {orientation}" in said and "\n" not in said


@pytest.mark.parametrize("orientation", range(2, 9))
def test_what_the_photo_does_not_tell_is_said(orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[5:25, 8:20] = True
    for one in (mask, before(mask, orientation)):
        (note,) = check_fits(read_photo(with_tag(noise, orientation, "PNG")), one)
        assert "cannot be told" in note and f"orientation {orientation}" in note and "\n" not in note


@pytest.mark.parametrize("orientation", range(1, 9))
def test_where_there_is_nothing_to_tell_nothing_is_said(orientation: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    y, x = np.ogrid[:60, :60]
    for mask in (
        np.zeros((60, 60), bool),
        np.ones((60, 60), bool),
        (y - 29.5) ** 2 + (x - 29.5) ** 2 < 400,  # the same in every turn
    ):
        assert check_fits(read_photo(with_tag(noise, orientation, "PNG")), mask) == ()
    if orientation >= 5:
        oblong, mask = noise[:40], np.zeros((40, 60), bool)
        mask[3:20, 4:9] = True
        photo = read_photo(with_tag(oblong, orientation, "PNG"))
        assert check_fits(photo, mask) == ()
        with pytest.raises(SizeMismatchError, match="EXIF"):
            check_fits(photo, before(mask, orientation))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 900)])
def test_any_shape_is_compared(shape: tuple[int, int]) -> None:
    photo = Photo(np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8), orientation=3)
    mask = np.zeros(shape, bool)
    mask.flat[0] = True
    assert len(check_fits(photo, mask)) <= 1
