"""Label maps and panoptic ids as files: what was stored comes back, and what is none is refused."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from segrefiner.errors import MaskError, OutputError
from segrefiner.imaging.label_files import LARGEST_ID, LabelMap, read_ids, read_labels, write_ids, write_labels

QUICK = settings(max_examples=40)
SIDES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)
LABELS = np.kron([[0, 1, 5], [255, 9, 254]], np.ones((4, 5), int)).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)


def in_palette(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette(colours.tobytes(), "RGB")
    return picture


def encode(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def with_colours(png: bytes, count: int) -> bytes:
    """A PNG with the first colours of its palette alone, as other programs write them; Pillow would cut labels off."""
    start = png.index(b"PLTE") - 4
    end = start + 12 + struct.unpack(">I", png[start : start + 4])[0]
    chunk = b"PLTE" + png[start + 8 : start + 8 + 3 * count]
    return png[:start] + struct.pack(">I", 3 * count) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[end:]


@QUICK
@given(arrays.arrays(st.sampled_from([np.uint8, np.uint16]), SIDES))
def test_grey_label_maps_come_back(tmp_path: Path, labels: np.ndarray) -> None:
    write_labels(tmp_path / "labels.png", LabelMap(labels))
    read = read_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(read.labels, labels)
    assert read.labels.dtype == labels.dtype and read.palette is None


def test_grey_palette_and_16_bit_hold_the_same_labels() -> None:
    for picture in (Image.fromarray(LABELS), in_palette(LABELS, COLOURS), Image.fromarray(LABELS.astype(np.uint16))):
        labels = read_labels(encode(picture)).labels
        assert labels.flags.c_contiguous
        np.testing.assert_array_equal(labels, LABELS)


def test_palettes_are_kept_and_labels_are_no_colours(tmp_path: Path) -> None:
    in_palette(LABELS, COLOURS).save(tmp_path / "given.png")
    label_map = read_labels(tmp_path / "given.png")
    np.testing.assert_array_equal(label_map.labels, LABELS)
    np.testing.assert_array_equal(label_map.palette, COLOURS)
    write_labels(tmp_path / "written.png", label_map)
    with Image.open(tmp_path / "given.png") as given, Image.open(tmp_path / "written.png") as written:
        assert written.mode == "P" and written.getpalette("RGB") == given.getpalette("RGB")
        np.testing.assert_array_equal(np.asarray(written), LABELS)
        np.testing.assert_array_equal(np.asarray(written.convert("RGB")), COLOURS[LABELS])


def test_grey_palettes_are_kept_and_labels_are_no_greys() -> None:
    greys = np.repeat(np.arange(255, -1, -1, np.uint8)[:, None], 3, axis=1)
    label_map = read_labels(encode(in_palette(LABELS, greys)))
    np.testing.assert_array_equal(label_map.labels, LABELS)
    np.testing.assert_array_equal(label_map.palette, greys)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 254, 255])
def test_labels_without_a_colour_of_their_own_come_back(count: int, tmp_path: Path) -> None:
    given = read_labels(with_colours(encode(in_palette(LABELS, COLOURS)), count))
    np.testing.assert_array_equal(given.labels, LABELS)
    write_labels(tmp_path / "written.png", given)
    written = read_labels(tmp_path / "written.png")
    np.testing.assert_array_equal(written.labels, LABELS)
    assert written.palette is not None
    np.testing.assert_array_equal(written.palette[:count], COLOURS[:count])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits_come_back(bits: int, tmp_path: Path) -> None:
    labels = (LABELS % 2**bits).astype(np.uint8)
    picture = in_palette(labels, COLOURS[: 2**bits])
    write_labels(tmp_path / "written.png", read_labels(encode(picture)))
    written = read_labels(tmp_path / "written.png")
    np.testing.assert_array_equal(written.labels, labels)
    np.testing.assert_array_equal(written.palette, COLOURS[: 2**bits])


@pytest.mark.parametrize(
    ("picture", "format", "dtype"),
    [
        (Image.fromarray(LABELS > 5), "PNG", np.uint8),
        (Image.fromarray(LABELS), "TIFF", np.uint8),
        (Image.fromarray(LABELS), "BMP", np.uint8),
        (Image.fromarray(LABELS.astype(np.uint16) * 257), "TIFF", np.uint16),
        (Image.frombytes("I;16B", (15, 8), (LABELS.astype(">u2") * 257).tobytes()), "TIFF", np.uint16),
        (Image.fromarray(LABELS.astype(np.int32) * 257), "TIFF", np.uint16),
    ],
    ids=["one bit", "grey tiff", "bmp", "16 bit tiff", "16 bit big-endian", "32 bit tiff"],
)
def test_other_files_and_pictures_hold_the_same_labels(picture: Image.Image, format: str, dtype: Any) -> None:
    expected = np.asarray(picture).astype(dtype)
    for source in (picture, encode(picture, format)):
        read = read_labels(source)
        np.testing.assert_array_equal(read.labels, expected)
        assert read.labels.dtype == dtype


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.new("RGB", (3, 3), (1, 2, 3)), "mode RGB"),
        (Image.new("RGBA", (3, 3), (1, 2, 3, 255)), "mode RGBA"),
        (Image.merge("LA", [Image.new("L", (3, 3)), Image.linear_gradient("L").resize((3, 3))]), "is transparent"),
        (Image.new("F", (3, 3)), "mode F"),
        (Image.new("CMYK", (3, 3)), "mode CMYK"),
        (Image.fromarray(np.array([[0, 65536]], np.int32)), "0 to 65536"),
        (Image.fromarray(np.array([[-1, 2]], np.int32)), "-1 to 2"),
    ],
)
def test_colours_and_labels_out_of_range_are_refused(picture: Image.Image, said: str) -> None:
    with pytest.raises(MaskError, match=said) as caught:
        read_labels(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_labels, read_ids])
def test_broken_files_are_refused(read: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = encode(Image.fromarray(np.dstack([LABELS] * 3) if read is read_ids else LABELS))
    for source in (tmp_path / "text.png", tmp_path / "absent.png", tmp_path, b"", whole[: len(whole) // 2]):
        with pytest.raises(MaskError) as caught:
            read(source)
        assert "\n" not in str(caught.value)


@QUICK
@given(arrays.arrays(np.int32, SIDES, elements=st.integers(0, LARGEST_ID) | st.sampled_from([255, 256, 65535, 65536])))
def test_ids_come_back(tmp_path: Path, ids: np.ndarray) -> None:
    write_ids(tmp_path / "ids.png", ids)
    np.testing.assert_array_equal(read_ids(tmp_path / "ids.png"), ids)


def test_ids_are_colours_as_coco_has_them(tmp_path: Path) -> None:
    write_ids(tmp_path / "ids.png", np.array([[1, 2 * 256, 3 * 65536 + 7]], np.int32))
    with Image.open(tmp_path / "ids.png") as picture:
        assert picture.mode == "RGB"
        assert [picture.getpixel((x, 0)) for x in range(3)] == [(1, 0, 0), (0, 2, 0), (7, 0, 3)]
        with_alpha = picture.convert("RGBA")
    np.testing.assert_array_equal(read_ids(with_alpha), read_ids(tmp_path / "ids.png"))


@pytest.mark.parametrize("value", [-1, LARGEST_ID + 1, 2**31 - 1])
def test_ids_that_three_bytes_cannot_hold_are_refused_and_nothing_is_written(value: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=str(LARGEST_ID)):
        write_ids(tmp_path / "ids.png", np.array([[5, value]], np.int32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["L", "1", "I;16", "I", "F", "CMYK"])
def test_pictures_without_three_bytes_are_no_panoptic_maps(mode: str) -> None:
    with pytest.raises(MaskError, match=f"mode {mode}, expected .*RGB"):
        read_ids(Image.new(mode, (3, 3)))
