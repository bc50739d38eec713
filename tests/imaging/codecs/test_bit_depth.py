"""Photos of fewer bits than their sixteen: read as what they show, and said."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.storage import GREY, RGB, RGBA, png, tiff
from segrefiner import InputWarning
from segrefiner.imaging.reading import read_image, read_photo

RNG = np.random.default_rng(0)
PHOTO = np.clip(RNG.normal(120, 60, (20, 30, 3)), 0, 255).astype(np.uint8)
PHOTO[0, :2, 0] = 0, 255

CARRIERS: dict[str, Any] = {
    "array": lambda values: values,
    "int64": lambda values: values.astype(np.int64),
    "big-endian": lambda values: values.astype(">u2"),
    "channels first": lambda values: np.moveaxis(values, -1, 0),
    "grey array": lambda values: values[..., 0],
    "Pillow": lambda values: Image.fromarray(values[..., 0]),
    "PNG": lambda values: png(values, 16, RGB),
    "grey PNG": lambda values: png(values[..., 0], 16, GREY),
    "PNG with opacity": lambda values: png(np.dstack([values, 0 * values[..., :1] + 65535]), 16, RGBA),
    "grey PNG with opacity": lambda values: png(np.dstack([values[..., 0], 0 * values[..., 0] + 65535]), 16, 4),
    "TIFF": lambda values: tiff(values, 2),
    "grey TIFF": lambda values: tiff(values[..., 0], 1, big_endian=True),
}


def stored(photo: np.ndarray, bits: int, way: str) -> np.ndarray:
    """The photo in so many of sixteen bits."""
    values = photo.astype(np.uint16)
    if way == "moved":
        return values << (bits - 8)
    return np.rint(values * ((2**bits - 1) / 255)).astype(np.uint16)


def close(read: np.ndarray, photo: np.ndarray, carrier: str) -> bool:
    expected = np.repeat(photo[..., :1], 3, axis=2) if "grey" in carrier or carrier == "Pillow" else photo
    return bool(np.abs(read.astype(int) - expected).max() <= 1)


@pytest.mark.parametrize("way", ["scaled", "moved"])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_photo_of_fewer_bits_is_scaled_and_said(carrier: str, bits: int, way: str) -> None:
    photo = read_photo(CARRIERS[carrier](stored(PHOTO, bits, way)))
    assert close(photo.pixels, PHOTO, carrier)
    (note,) = photo.notes
    assert f"{bits} bits" in note and "\n" not in note


@pytest.mark.parametrize("carrier", [name for name in CARRIERS if name != "int64"])
def test_eight_bits_in_sixteen_are_scaled_and_said(carrier: str) -> None:
    photo = read_photo(CARRIERS[carrier](PHOTO.astype(np.uint16)))
    assert close(photo.pixels, PHOTO, carrier)
    assert len(photo.notes) == 1 and "8 bits" in photo.notes[0]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_photo_of_sixteen_bits_is_not_spoken_of(carrier: str) -> None:
    noise = RNG.integers(0, 256, PHOTO.shape).astype(np.uint16)
    for values in (PHOTO.astype(np.uint16) * 257, (PHOTO.astype(np.uint16) << 8) | noise):
        photo = read_photo(CARRIERS[carrier](values))
        assert photo.notes == () and close(photo.pixels, PHOTO, carrier)


@pytest.mark.parametrize(("bits", "brightest"), [(8, 63), (10, 220), (12, 900), (14, 3500)])
def test_a_dark_photo_brought_to_sixteen_bits_stays_dark(bits: int, brightest: int) -> None:
    values = RNG.integers(0, brightest + 1, PHOTO.shape).astype(np.uint16)
    values.flat[0] = brightest
    moved = values << (16 - bits)
    photo = read_photo(moved)
    assert photo.notes == () and np.abs(photo.pixels - moved / 257).max() <= 1
    if bits == 8:
        photo = read_photo(values * 257)
        assert photo.notes == () and (photo.pixels == values).all()


@settings(max_examples=40)
@given(st.data())
def test_order_and_differences_of_values_outlive_the_guess(data: st.DataObject) -> None:
    bits = data.draw(st.integers(9, 16))
    high = data.draw(st.integers(2 ** (bits - 1), 2**bits - 1))
    values = np.random.default_rng(bits * high).integers(0, high + 1, (6, 7)).astype(np.uint16)
    values[0, :2] = 0, high
    photo = read_photo(values)
    shown = photo.pixels[..., 0].astype(int)
    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(shown.ravel()[order]) >= 0).all()
    # Without a word, nothing is read as darker than a quarter of what the file's own bits would show.
    assert photo.notes or shown.max() >= 63 or not (values % 4).any()
    assert shown.max() >= 32 or not photo.notes


def test_eight_bits_constants_and_floats_are_not_spoken_of() -> None:
    for photo in (
        PHOTO // 8,
        (PHOTO // 8).astype(np.int32),
        np.full((4, 5, 3), 700, np.uint16),
        np.zeros((4, 5), np.uint16),
        PHOTO / np.float32(255),
        PHOTO / np.float32(255 * 4),
        np.zeros((4, 5)),
        png(PHOTO, 8, RGB),
    ):
        assert read_photo(photo).notes == ()


def test_floats_with_hardly_any_greys_are_said() -> None:
    (note,) = read_photo(stored(PHOTO, 10, "scaled") / 65535).notes
    assert "5 greys" in note and "divide" in note and "\n" not in note


def test_reading_pixels_alone_warns() -> None:
    with pytest.warns(InputWarning, match="12 bits"):
        read = read_image(stored(PHOTO, 12, "scaled"))
    assert close(read, PHOTO, "array")
