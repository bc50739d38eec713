"""Laws of storage: however one picture is stored, it means the same, or it is refused in a sentence."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from helpers.storage import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, png, tiff
from segrefiner.errors import MaskError
from segrefiner.imaging.label_files import LabelMap, background_label, labels_png, read_ids, read_labels
from segrefiner.imaging.reading import read_image, read_mask, read_mask_values

pytestmark = pytest.mark.filterwarnings("error")

QUICK = settings(max_examples=60)
RNG = np.random.default_rng(0)
MASK = RNG.random((7, 9)) < 0.5
MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(
    lambda mask: mask.any() and not mask.all()
)
COLOURS = st.tuples(*[st.integers(0, 255)] * 3).filter(any)
LONG = zlib.compress(bytes(1_100_000))


def encode(picture: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if format == "WEBP":
        options.setdefault("lossless", True)
    picture.save(stream, format, **options)
    return stream.getvalue()


def coloured(mask: NDArray[np.bool_], colour: tuple[int, ...]) -> NDArray[np.uint8]:
    return mask[..., None] * np.array(colour, np.uint8)


# Masks


@QUICK
@given(mask=MASKS, depth=st.sampled_from([1, 2, 4, 8, 16]), low=st.booleans(), interlaced=st.booleans())
def test_greys_of_every_depth_mean_one_mask(mask: NDArray[np.bool_], depth: int, low: bool, interlaced: bool) -> None:
    value = 1 if low else 2**depth - 1
    np.testing.assert_array_equal(read_mask(png(mask * value, depth, GREY, interlaced=interlaced)), mask)


@QUICK
@given(mask=MASKS, colour=COLOURS, depth=st.sampled_from([8, 16]), low=st.booleans(), interlaced=st.booleans())
def test_one_colour_on_black_is_the_object_also_in_16_bits(
    mask: NDArray[np.bool_], colour: tuple[int, ...], depth: int, low: bool, interlaced: bool
) -> None:
    samples = coloured(mask, colour).astype(np.uint16) * (257 if depth == 16 and not low else 1)
    np.testing.assert_array_equal(read_mask(png(samples, depth, RGB, interlaced=interlaced)), mask)


@QUICK
@given(mask=MASKS, colour=COLOURS, depth=st.sampled_from([1, 2, 4, 8]), data=st.data())
def test_the_order_of_a_palette_says_nothing(
    mask: NDArray[np.bool_], colour: tuple[int, ...], depth: int, data: st.DataObject
) -> None:
    count = 2**depth
    kinds = data.draw(st.permutations([True, False]))
    kinds = [*kinds, *data.draw(st.lists(st.booleans(), max_size=count - 2))]
    table = bytes(value for kind in kinds for value in (colour if kind else (0, 0, 0)))
    places = {kind: [i for i, one in enumerate(kinds) if one == kind] for kind in (True, False)}
    indices = np.array([[data.draw(st.sampled_from(places[bool(pixel)])) for pixel in row] for row in mask])
    opaque = png(indices, depth, PALETTE, before=((b"PLTE", table),))
    np.testing.assert_array_equal(read_mask(opaque), mask)
    # The background may be transparent as well: then the colours say nothing.
    table = data.draw(st.binary(min_size=len(table), max_size=len(table)))
    clear = bytes(255 * kind for kind in kinds)
    alone = png(indices, depth, PALETTE, before=((b"PLTE", table), (b"tRNS", clear)))
    if len({table[3 * i : 3 * i + 3] for i in places[True]}) == 1:
        np.testing.assert_array_equal(read_mask(alone), mask)


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("colour", [(200, 0, 0), (255, 255, 255), (1, 0, 0)])
def test_pillows_adaptive_palettes_keep_the_mask(format: str, colour: tuple[int, ...]) -> None:
    picture = Image.fromarray(coloured(MASK, colour))
    for reduced in (picture.quantize(2), picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=2)):
        np.testing.assert_array_equal(read_mask(encode(reduced, format)), MASK)
        np.testing.assert_array_equal(read_mask(reduced), MASK)


@QUICK
@given(
    mask=MASKS,
    mode=st.sampled_from(["LA", "RGBA"]),
    depth=st.sampled_from([8, 16]),
    interlaced=st.booleans(),
    data=st.data(),
)
def test_the_opacity_of_a_cut_out_is_its_mask(
    mask: NDArray[np.bool_], mode: str, depth: int, interlaced: bool, data: st.DataObject
) -> None:
    channels = len(mode) - 1
    colours = data.draw(arrays.arrays(np.uint16, (*mask.shape, channels), elements=st.integers(1, 2**depth - 1)))
    samples = np.dstack([colours, mask * (2**depth - 1)])
    stored = png(samples, depth, RGBA if mode == "RGBA" else GREY_ALPHA, interlaced=interlaced)
    np.testing.assert_array_equal(read_mask(stored), mask)
    if depth == 8:
        picture = Image.fromarray(samples.astype(np.uint8))
        for format in ("TIFF", "WEBP") if mode == "RGBA" else ("TIFF",):
            np.testing.assert_array_equal(read_mask(encode(picture, format)), mask)
        np.testing.assert_array_equal(read_mask(picture), mask)
        np.testing.assert_array_equal(read_mask(samples.astype(np.uint8)), mask)


def test_what_is_transparent_is_no_object_whatever_its_colour() -> None:
    white, black = np.full((7, 9, 3), 255, np.uint8), np.zeros((7, 9, 3), np.uint8)
    for visible, hidden in ((black, white), (white, black), (black, black)):
        samples = np.dstack([np.where(MASK[..., None], visible, hidden), MASK * np.uint8(255)])
        np.testing.assert_array_equal(read_mask(png(samples, 8, RGBA)), MASK)
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        for value in (0, top):
            stored = png(np.where(MASK, top - value, value), depth, GREY, before=((b"tRNS", struct.pack(">H", value)),))
            np.testing.assert_array_equal(read_mask(stored), MASK)
    for depth, key in ((8, (9, 0, 0)), (16, (2, 0, 0))):
        samples = np.where(MASK[..., None], np.array((1, 0, 0)), np.array(key))
        stored = png(samples, depth, RGB, before=((b"tRNS", struct.pack(">HHH", *key)),))
        np.testing.assert_array_equal(read_mask(stored), MASK)


def test_a_soft_cut_out_is_cut_in_its_middle_unless_a_threshold_says_otherwise() -> None:
    alpha = np.array([[0, 1, 127, 128, 200, 255]], np.uint8)
    picture = np.dstack([RNG.integers(1, 255, (1, 6, 3), np.uint8), alpha])
    np.testing.assert_array_equal(read_mask(picture), alpha >= 128)
    np.testing.assert_array_equal(read_mask(picture, threshold=2), alpha >= 2)
    np.testing.assert_array_equal(read_mask_values(picture), alpha)
    # A layer of some opacity is as good as an opaque one.
    np.testing.assert_array_equal(read_mask(np.dstack([picture[..., :3], alpha // 4])), alpha // 4 >= 32)


def test_opacity_that_hides_nothing_is_no_mask() -> None:
    for opacity in (255, 254, 40):
        samples = np.dstack([coloured(MASK, (200, 0, 0)), np.full(MASK.shape, opacity, np.uint8)])
        np.testing.assert_array_equal(read_mask(samples), MASK)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (png(MASK * 1, 8, PALETTE, before=((b"PLTE", bytes(6)),)), "all in one colour"),
        (png(MASK * 1, 8, PALETTE, before=((b"PLTE", bytes(3)),)), "the index 1 but only 1 colours"),
        (png(MASK * 1, 8, PALETTE, before=((b"PLTE", bytes([9, 0, 0, 0, 9, 0])),)), "several colours"),
        (png(np.dstack([coloured(MASK, (9, 9, 9)), RNG.integers(0, 2, MASK.shape) * 255]), 8, RGBA), "two masks"),
        (png(np.dstack([MASK * 0, 200 + MASK * 55]), 8, GREY_ALPHA), "opacity goes from 200 to 255"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(stored: bytes, said: str) -> None:
    for threshold in (None, 1):
        if threshold and "200" in said:
            continue
        with pytest.raises(MaskError, match=said) as caught:
            read_mask(stored, threshold=threshold)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_of_every_kind_mean_one_mask_or_are_refused(dtype: Any, big_endian: bool) -> None:
    top = np.iinfo(dtype).max
    values = MASK * dtype(top)
    kinds = {
        "least is black": tiff(values, 1, big_endian=big_endian),
        "least is white": tiff(top - values, 0, big_endian=big_endian),
        "red": tiff(MASK[..., None] * np.array([1, 0, 0], dtype), 2, big_endian=big_endian),
        "premultiplied": tiff(np.dstack([values] * 4), 2, extra=1, big_endian=big_endian),
        "cut out": tiff(np.dstack([RNG.integers(1, 9, (7, 9, 3), dtype), values]), 2, extra=2, big_endian=big_endian),
    }
    for name, stored in kinds.items():
        try:
            np.testing.assert_array_equal(read_mask(stored), MASK, err_msg=name)
        except MaskError as refused:
            assert dtype == np.uint16 and "save it" in str(refused) and "\n" not in str(refused)


# Side data

CHUNKS: dict[str, tuple[bytes, bytes]] = {
    "long text": (b"zTXt", b"Comment\0\0" + LONG),
    "long international text": (b"iTXt", b"Comment\0\1\0\0\0" + LONG),
    "long profile": (b"iCCP", b"profile\0\0" + LONG),
    "long EXIF in a text": (b"zTXt", b"Raw profile type exif\0\0" + LONG),
    "long XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    "profile cut short": (b"iCCP", b"profile"),
    "odd compression": (b"zTXt", b"Comment\0\5rest"),
    "gamma": (b"gAMA", struct.pack(">I", 45455)),
    "gamma cut short": (b"gAMA", b""),
    "chromaticities cut short": (b"cHRM", b"123"),
    "size cut short": (b"pHYs", b""),
    "intent cut short": (b"sRGB", b""),
    "animation cut short": (b"acTL", b""),
    "frame cut short": (b"fcTL", b""),
    "EXIF that is none": (b"eXIf", b"none"),
    "private": (b"prVt", bytes(1000)),
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS.keys())
def test_side_data_is_in_nobodys_way(chunk: tuple[bytes, bytes]) -> None:
    photo = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    for sides in ({"before": (chunk,)}, {"after": (chunk,)}, {"before": (chunk, chunk), "after": (chunk,)}):
        np.testing.assert_array_equal(read_mask(png(MASK * 255, 8, GREY, **sides)), MASK)
        np.testing.assert_array_equal(read_labels(png(MASK * 3, 8, GREY, **sides)).labels, MASK * 3)
        np.testing.assert_array_equal(read_image(png(photo, 8, RGB, **sides)), photo)


def test_long_side_data_of_other_formats_is_in_nobodys_way() -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    for format in ("JPEG", "TIFF", "WEBP"):
        plain, loaded = (
            read_image(encode(picture, format, **sides)) for sides in ({}, {"icc_profile": bytes(1_500_000)})
        )
        np.testing.assert_array_equal(plain, loaded)


@pytest.mark.parametrize("name", ["eXIf", "tEXt", "zTXt", "iTXt"])
@pytest.mark.parametrize("behind", [False, True])
def test_orientation_is_found_wherever_a_png_has_it(name: str, behind: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    profile = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>' + b" " * 200_000
    data = {
        "eXIf": raw.removeprefix(b"Exif\0\0"),
        "tEXt": b"Raw profile type exif\0" + profile,
        "zTXt": b"Raw profile type exif\0\0" + zlib.compress(profile),
        "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + xmp,
    }[name]
    chunk = ((name.encode(), data), CHUNKS["long text"])
    stored = png(MASK * 255, 8, GREY, **{"after" if behind else "before": chunk})
    np.testing.assert_array_equal(read_mask(stored), np.rot90(MASK, -1))


# Label maps and panoptic maps

LABELS = RNG.integers(0, 3, (7, 9))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_indices_of_a_palette_are_labels_at_every_depth(depth: int, interlaced: bool) -> None:
    table = RNG.bytes(9)
    for more in ((), ((b"tRNS", b"\xff\0\xff"),)):
        stored = png(LABELS, depth, PALETTE, before=((b"PLTE", table), *more), interlaced=interlaced)
        label_map = read_labels(stored)
        np.testing.assert_array_equal(label_map.labels, LABELS)
        again = read_labels(labels_png(label_map))
        np.testing.assert_array_equal(again.labels, LABELS)
        assert again.palette is not None and label_map.palette is not None
        colours = again.palette[: len(label_map.palette)]
        # Pillow before 12 fills a palette up to a power of two, with opaque black that no pixel has.
        filling = again.palette[len(colours) :]
        np.testing.assert_array_equal(colours, label_map.palette)
        assert not filling[:, :3].any() and (filling[:, 3:] == 255).all()


def test_labels_are_the_same_in_grey_and_in_three_equal_channels() -> None:
    grey = LABELS.astype(np.uint8)
    opaque = np.full_like(grey, 255)
    for samples in (grey, np.dstack([grey] * 3), np.dstack([grey, opaque]), np.dstack([grey, grey, grey, opaque])):
        for format in ("PNG", "TIFF"):
            np.testing.assert_array_equal(read_labels(encode(Image.fromarray(samples), format)).labels, LABELS)
    for samples, colour in ((LABELS, GREY), (np.dstack([LABELS] * 3), RGB)):
        np.testing.assert_array_equal(read_labels(png(samples, 16, colour)).labels, LABELS)


@pytest.mark.parametrize("read", [read_labels, read_ids])
def test_labels_with_losses_or_holes_are_refused(read: Callable[[bytes], Any]) -> None:
    colours = np.dstack([LABELS.astype(np.uint8)] * 3)
    with pytest.raises(MaskError, match="JPEG, whose compression"):
        read(encode(Image.fromarray(colours), "JPEG"))
    with pytest.raises(MaskError, match="transparent"):
        read(encode(Image.fromarray(np.dstack([colours, LABELS.astype(np.uint8)])), "PNG"))


@QUICK
@given(data=st.data())
def test_ids_are_the_same_with_and_without_a_palette(data: st.DataObject) -> None:
    table = data.draw(arrays.arrays(np.uint8, (3, 3)))
    colours = table[LABELS]
    expected = colours.astype(int) @ [1, 256, 65536]
    indexed = png(LABELS, 8, PALETTE, before=((b"PLTE", table.tobytes()),))
    for stored in (png(colours, 8, RGB), png(colours, 8, RGB, interlaced=True), indexed):
        np.testing.assert_array_equal(read_ids(stored), expected)
    with pytest.raises(MaskError, match="of 16 bits"):
        read_ids(png(colours, 16, RGB))


@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        (None, 0),
        ([[0, 0, 0], [9, 0, 0], [0, 9, 0]], 0),
        ([[9, 0, 0], [0, 0, 0], [0, 9, 0]], 1),
        ([[9, 0, 0], [0, 8, 0], [0, 9, 0]], 0),
        ([[0, 0, 0, 255], [9, 0, 0, 255], [0, 9, 0, 0]], 2),
    ],
)
def test_the_background_of_a_label_map_is_what_shows_nothing(palette: Any, expected: int) -> None:
    colours = None if palette is None else np.array(palette, np.uint8)
    assert background_label(LabelMap(LABELS.astype(np.uint8), colours)) == expected
