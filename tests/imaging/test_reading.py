"""Laws of reading and writing: one picture means one array, however stored; bad input means one line."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from segrefiner.errors import ImageError, MaskError, SizeMismatchError
from segrefiner.imaging.files import write_png
from segrefiner.imaging.reading import check_same_size, exif_turned, read_image, read_mask

pytestmark = pytest.mark.filterwarnings("error")

QUICK = settings(max_examples=40)
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
MASK = RNG.random((6, 9)) < 0.5
SIDES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)


def encode(picture: Image.Image, format: str, **options: Any) -> bytes:
    stream = BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def in_palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(indices.astype(np.uint8))
    picture.putpalette([channel for colour in colours for channel in colour])
    return picture


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


class Tensor:
    """Stands for an array of another library."""

    def __init__(self, values: np.ndarray, failure: Exception | None = None) -> None:
        self.values = values
        self.failure = failure

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.failure:
            raise self.failure
        return self.values


# Reading photos


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_their_pixels_whatever_they_are_called(tmp_path: Path, format: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(Image.fromarray(PHOTO), format))
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(read_image(source), PHOTO)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "AVIF"])
def test_other_formats_are_close(format: str) -> None:
    if format not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow has no {format}")
    smooth = np.tile(np.linspace(20, 230, 32).astype(np.uint8)[None, :, None], (24, 1, 3))
    read = read_image(encode(Image.fromarray(smooth), format))
    assert np.abs(read.astype(int) - smooth).max() <= 8


@pytest.mark.parametrize(
    "source",
    [
        PHOTO,
        PHOTO.astype(np.uint16) * 257,
        PHOTO.astype(np.int64),
        (PHOTO / 255).astype(np.float32),
        PHOTO / 255,
        np.dstack([PHOTO, RNG.integers(0, 256, (6, 9), dtype=np.uint8)]),
        np.ascontiguousarray(PHOTO[:, ::-1])[:, ::-1],
        Tensor(PHOTO),
        Image.fromarray(PHOTO),
        Image.fromarray(np.dstack([PHOTO, np.zeros((6, 9), np.uint8)])),
    ],
    ids=[
        "uint8",
        "uint16",
        "int64",
        "float32",
        "float64",
        "alpha",
        "strided",
        "tensor",
        "pillow",
        "transparent",
    ],
)
def test_every_carrier_of_a_photo_gives_the_same_array(source: Any) -> None:
    read = read_image(source)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous and read.flags.writeable
    np.testing.assert_array_equal(read, PHOTO)


@pytest.mark.parametrize(
    ("source", "grey"),
    [
        (MASK, MASK * 255),
        (PHOTO[..., 0], PHOTO[..., 0]),
        (PHOTO[..., :1], PHOTO[..., 0]),
        (Image.fromarray(MASK), MASK * 255),
        (Image.fromarray(PHOTO[..., 0]).convert("LA"), PHOTO[..., 0]),
        (Image.fromarray(PHOTO[..., 0].astype(np.int32)), PHOTO[..., 0]),
        (Image.fromarray(PHOTO[..., 0].astype(np.int32) * 257), PHOTO[..., 0]),
        (Image.fromarray(PHOTO[..., 0].astype(np.float32) / 255), PHOTO[..., 0]),
        (encode(Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257), "PNG"), PHOTO[..., 0]),
        (encode(Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 257), "TIFF"), PHOTO[..., 0]),
    ],
    ids=["bool", "grey", "channel", "1", "LA", "I", "I-of-16-bit", "F", "png-16-bit", "tiff-16-bit"],
)
def test_grey_photos_get_three_equal_channels(source: Any, grey: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(source), np.dstack([grey] * 3))


def test_a_dark_16_bit_file_stays_dark() -> None:
    dark = np.full((6, 9), 255, np.uint16)
    for data in (b"P5 9 6 65535\n" + dark.astype(">u2").tobytes(), encode(Image.fromarray(dark), "PNG")):
        assert (read_image(data) == 1).all()


def test_a_palette_photo_gives_its_colours_also_with_transparency() -> None:
    picture = in_palette(MASK, (10, 20, 30), (200, 100, 50))
    expected = np.where(MASK[..., None], np.uint8([200, 100, 50]), np.uint8([10, 20, 30]))
    np.testing.assert_array_equal(read_image(encode(picture, "PNG")), expected)
    # Pillow warns when it converts such a file to RGB in one step.
    transparent = encode(picture, "PNG", transparency=b"\x00\x80")
    np.testing.assert_array_equal(read_image(transparent), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "PA"])
def test_rare_modes_agree_with_pillow(mode: str) -> None:
    source = Image.fromarray(PHOTO)
    source = source.convert("P" if mode == "PA" else "RGBA" if mode == "RGBa" else "RGB").convert(mode)
    through = source.convert("RGBA") if mode in ("RGBa", "PA") else source
    np.testing.assert_array_equal(read_image(source), np.asarray(through.convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_an_animation_counts(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    animation = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert read_image(animation).min() >= 250


def test_a_jpeg_with_several_pictures_gives_the_first() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert read_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:])).min() >= 250


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_agree_with_pillow(format: str, orientation: int) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.fromarray(PHOTO), format, exif=with_exif(orientation), **options)
    with Image.open(BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(read_image(data), expected)
    with Image.open(BytesIO(data)) as picture:
        np.testing.assert_array_equal(read_image(picture), expected)
    assert exif_turned(data) is (orientation >= 5) is (expected.shape[:2] != PHOTO.shape[:2])


@pytest.mark.parametrize("exif", [b"Exif\x00\x00broken", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff"])
def test_broken_exif_hides_no_pixels(exif: bytes) -> None:
    assert read_image(encode(Image.fromarray(PHOTO), "JPEG", exif=exif)).shape == PHOTO.shape
    text = PngInfo()
    text.add_text("Raw profile type exif", "\n\n\nno hexadecimal digits")
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(PHOTO), "PNG", pnginfo=text)), PHOTO)


def test_arrays_carry_no_exif() -> None:
    assert not exif_turned(PHOTO)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    write_png(tmp_path / "a.png", np.ones(shape, bool))
    assert read_image(tmp_path / "a.png").shape == (*shape, 3)
    assert read_mask(tmp_path / "a.png").shape == shape


def test_the_pixel_limit_is_ours_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.new("1", (400, 300)), "PNG")
    for limit in (100, 70_000):  # for Pillow an error, then a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(data, max_pixels=120_000).shape == (300, 400, 3)
    for source in (data, Image.new("1", (400, 300))):
        with pytest.raises(ImageError, match="400x300 pixels, more than the limit of 119999"):
            read_image(source, max_pixels=119_999)
        with pytest.raises(MaskError, match="max_pixels"):
            read_mask(source, max_pixels=119_999)


# Reading masks


@QUICK
@given(mask=arrays.arrays(bool, SIDES))
def test_a_written_mask_reads_back(tmp_path: Path, mask: np.ndarray) -> None:
    write_png(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), mask * 255)


@QUICK
@given(
    mask=arrays.arrays(bool, SIDES),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int8, np.int32, np.int64, np.uint64]),
    high=st.integers(1, 127),
)
def test_any_integer_over_zero_is_object(mask: np.ndarray, dtype: Any, high: int) -> None:
    np.testing.assert_array_equal(read_mask(mask.astype(dtype) * dtype(high)), mask)


@QUICK
@given(
    probability=arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        SIDES,
        elements={"min_value": 0, "max_value": 1},
    )
)
def test_probabilities_mean_the_same_as_array_and_as_file(tmp_path: Path, probability: np.ndarray) -> None:
    expected = probability >= 0.5
    np.testing.assert_array_equal(read_mask(probability), expected)
    write_png(tmp_path / "soft.png", probability)
    stored = read_image(tmp_path / "soft.png")[..., 0]
    assert np.abs(stored / 255 - probability).max() <= 0.5 / 255 + 1e-6
    if 0 < stored.max() <= 1:
        return  # looks like a mask of 0 and 1, for which 128 is refused
    np.testing.assert_array_equal(read_mask(tmp_path / "soft.png", threshold=128), expected)


def colour_mask(colour: tuple[int, int, int]) -> np.ndarray:
    return MASK[..., None] * np.uint8(colour)


ALPHA = np.where(MASK, 255, 0).astype(np.uint8)
CARRIERS = {
    "bool": MASK,
    "0 and 255": ALPHA,
    "float 0 and 255": ALPHA.astype(np.float32),
    "(H, W, 1)": MASK[..., None],
    "(1, H, W)": MASK[None],
    "(H, W, 3)": np.dstack([ALPHA] * 3),
    "tensor": Tensor(MASK[None]),
    "flipped": np.ascontiguousarray(MASK[::-1])[::-1],
    "overshoot": np.where(MASK, 1.00001, -0.00001),
    "1-bit png": encode(Image.fromarray(MASK), "PNG"),
    "8-bit png": encode(Image.fromarray(ALPHA), "PNG"),
    "16-bit png": encode(Image.fromarray(MASK.astype(np.uint16) * 65535), "PNG"),
    "16-bit png of 0 and 1": encode(Image.fromarray(MASK.astype(np.uint16)), "PNG"),
    "float tiff": encode(Image.fromarray(MASK.astype(np.float32)), "TIFF"),
    "int tiff": encode(Image.fromarray(MASK.astype(np.int32)), "TIFF"),
    "gif": encode(Image.fromarray(ALPHA), "GIF"),
    "bmp": encode(Image.fromarray(MASK), "BMP"),
    "palette": encode(in_palette(MASK, (0, 0, 0), (128, 0, 0)), "PNG"),
    "palette of the object first": encode(in_palette(~MASK, (255, 0, 0), (0, 0, 0)), "PNG"),
    "palette of white and black": encode(in_palette(~MASK, (255, 255, 255), (0, 0, 0)), "PNG"),
    "palette with transparency": encode(in_palette(MASK, (0, 0, 0), (9, 0, 0)), "PNG", transparency=b"\0\x80"),
    "grey RGB": encode(Image.fromarray(ALPHA).convert("RGB"), "PNG"),
    "one colour on black": encode(Image.fromarray(colour_mask((200, 0, 30))), "PNG"),
    "grey and alpha, opaque": encode(Image.fromarray(ALPHA).convert("LA"), "PNG"),
    "grey RGBA, opaque": encode(Image.fromarray(ALPHA).convert("RGBA"), "PNG"),
    "black with alpha": np.dstack([np.zeros((6, 9, 3), np.uint8), ALPHA]),
    "red with alpha": np.dstack([np.full((6, 9, 3), np.uint8([200, 0, 0])), ALPHA]),
    "white with alpha, LA": np.dstack([np.full((6, 9), 255, np.uint8), ALPHA]),
    "CMYK": Image.fromarray(ALPHA).convert("RGB").convert("CMYK"),
}


@pytest.mark.parametrize("source", CARRIERS.values(), ids=CARRIERS.keys())
def test_every_carrier_of_a_mask_gives_the_same_array(source: Any) -> None:
    read = read_mask(source)
    assert read.dtype == bool
    assert read.flags.c_contiguous and read.flags.writeable
    np.testing.assert_array_equal(read, MASK)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int64, np.float32])
def test_constant_masks_are_empty_or_full(full: bool, dtype: Any) -> None:
    assert (read_mask(np.full((3, 4), full, dtype)) == full).all()
    assert (read_mask(np.full((3, 4), 255 * full, dtype)) == full).all()


def test_an_empty_layer_is_an_empty_mask() -> None:
    assert not read_mask(Image.new("RGBA", (4, 3), (255, 255, 255, 0))).any()
    assert read_mask(Image.new("RGBA", (4, 3), (255, 255, 255, 255))).all()
    assert not read_mask(Image.new("RGBA", (4, 3), (0, 0, 0, 255))).any()


def test_a_jpeg_mask_needs_a_threshold_and_takes_it() -> None:
    disc = (np.hypot(*(np.indices((48, 48)) - 24)) < 15).astype(np.uint8) * 255
    data = encode(Image.fromarray(disc), "JPEG", quality=50)
    with pytest.raises(MaskError, match=r"\d+ different values from 0 to 255.*threshold=.*--threshold.*128"):
        read_mask(data)
    np.testing.assert_array_equal(read_mask(data, threshold=128), disc > 0)


@QUICK
@given(
    values=arrays.arrays(np.uint16, SIDES, elements=st.integers(0, 65535)),
    threshold=st.integers(2, 65535) | st.floats(2, 65535),
)
def test_the_threshold_is_on_the_values_as_stored(values: np.ndarray, threshold: float) -> None:
    values[0, 0] = 65535
    for source in (values, values.astype(np.int64), encode(Image.fromarray(values), "PNG")):
        np.testing.assert_array_equal(read_mask(source, threshold=threshold), values >= threshold)


def test_a_threshold_picks_from_floats_of_any_scale() -> None:
    logits = np.array([[-3.0, 0.0, 2.5]])
    np.testing.assert_array_equal(read_mask(logits, threshold=0), [[False, True, True]])
    np.testing.assert_array_equal(read_mask(np.array([[0.2, 0.4]]), threshold=0.3), [[False, True]])


def test_a_threshold_changes_nothing_where_there_is_no_scale() -> None:
    for name in ("bool", "1-bit png", "one colour on black"):
        np.testing.assert_array_equal(read_mask(CARRIERS[name], threshold=128), MASK)


def test_a_mask_is_turned_by_its_own_tag_only() -> None:
    turned = encode(Image.fromarray(ALPHA), "PNG", exif=with_exif(6))
    np.testing.assert_array_equal(read_mask(turned), np.rot90(MASK, -1))


# Inputs that are refused


def file_of(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return make


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


PNG = encode(Image.fromarray(PHOTO), "PNG")
JPEG = encode(Image.fromarray(np.zeros((64, 64, 3), np.uint8) + 90), "JPEG")
EPS = encode(Image.fromarray(PHOTO), "EPS")
BOMB = encode(Image.new("1", (20_000, 11_000)), "PNG")
FTYP = b"\0\0\0\x18ftyp"

# What is given, what the message must name, and what it must say.
BAD_EVERYWHERE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "missing": (lambda folder: folder / "none.png", "none.png", "does not exist"),
    "missing, line break": (lambda folder: folder / "no\nne.png", "no\\nne.png", "does not exist"),
    "folder": (lambda folder: folder, "folder", "is a folder"),
    "below a file": (lambda folder: file_of("a.png", PNG)(folder) / "b", "a.png", "cannot be opened"),
    "null byte": (lambda _: "a\0.png", "a\\x00.png", "cannot be opened"),
    "pipe": (pipe, "pipe.png", "device or pipe"),
    "zero bytes": (file_of("void.png", b""), "void.png", "empty"),
    "text": (file_of("text.png", b"hello\nworld"), "text.png", "expected one of PNG, JPEG"),
    "truncated png": (file_of("half.png", PNG[: len(PNG) // 2]), "half.png", "damaged"),
    "truncated jpeg": (file_of("half.jpg", JPEG[: len(JPEG) // 2]), "half.jpg", "damaged"),
    "png header only": (file_of("head.png", PNG[:8]), "head.png", "damaged"),
    "text like a ppm": (file_of("a.png", b"Python is\nfun"), "a.png", "damaged"),
    "bomb": (file_of("bomb.png", BOMB), "bomb.png", "20000x11000 pixels"),
    "svg": (file_of("a.svg", b'<?xml version="1.0"?>\n<SVG/>'), "a.svg", "vector drawing"),
    "pdf": (file_of("a.png", b"%PDF-1.7\n"), "a.png", "PDF"),
    "heic": (file_of("a.jpg", FTYP + b"heic\0\0\0\0mif1heic"), "a.jpg", "HEIC"),
    "eps": (file_of("a.png", EPS), "a.png", "expected one of PNG, JPEG"),
    "ico": (lambda _: encode(Image.fromarray(PHOTO), "ICO"), "bytes in memory", "expected one of"),
    "None": (lambda _: None, "NoneType", "give a path"),
    "list of paths": (lambda _: ["a.png", "b.png"], "list", "give a path"),
    "complex": (lambda _: np.zeros((4, 4), complex), "(4, 4) complex128", "expected bool"),
    "object": (lambda _: np.full((4, 4), None), "(4, 4) object", "expected bool"),
    "text array": (lambda _: np.full((4, 4), "a"), "(4, 4) <U1", "expected bool"),
    "scalar": (lambda _: np.uint8(3), "uint8", "shape ()"),
    "4-D": (lambda _: np.zeros((2, 4, 4, 3)), "(2, 4, 4, 3)", "expected (H, W"),
    "no rows": (lambda _: np.zeros((0, 4)), "(0, 4)", "no pixels"),
    "no columns": (lambda _: Image.new("RGB", (0, 4)), "Pillow RGB, 0x4", "no pixels"),
    "NaN": (lambda _: np.full((4, 4), np.nan), "(4, 4) float64", "NaN"),
    "infinite": (lambda _: np.full((4, 4), np.inf), "(4, 4) float64", "infinite"),
    "tensor elsewhere": (lambda _: Tensor(MASK, TypeError("on\ncuda")), "Tensor", "on cuda"),
}
BAD_IMAGES = {
    "0-255 floats": (lambda _: np.full((4, 4, 3), 200.0), "(4, 4, 3) float64", "expected [0, 1]"),
    "negative": (lambda _: np.full((4, 4, 3), -1), "(4, 4, 3) int64", "values from -1"),
    "32 bit": (lambda _: np.full((4, 4), 70_000), "(4, 4) int64", "to 70000"),
    "a stack": (lambda _: np.zeros((2, 4, 5)), "(2, 4, 5)", "channels last"),
}
BAD_MASKS = {
    "labels": (lambda _: np.array([[0, 1, 2]]), "(1, 3) int64", "3 different values from 0 to 2"),
    "two labels": (lambda _: np.array([[1, 2]]), "(1, 2) int64", "threshold"),
    "ignore label": (lambda _: np.array([[-1, 0]]), "(1, 2) int64", "-1 to 0"),
    "logits": (lambda _: np.array([[-3.5, 2]]), "(1, 2) float64", "sigmoid"),
    "several colours": (file_of("a.png", PNG), "a.png", "several colours"),
    "a stack": (lambda _: np.zeros((5, 6, 7), bool), "(5, 6, 7)", "one mask at a time"),
}
CASES = [
    *((read_image, ImageError, *case) for case in (BAD_EVERYWHERE | BAD_IMAGES).values()),
    *((read_mask, MaskError, *case) for case in (BAD_EVERYWHERE | BAD_MASKS).values()),
]
NAMES = [f"image: {name}" for name in BAD_EVERYWHERE | BAD_IMAGES]
NAMES += [f"mask: {name}" for name in BAD_EVERYWHERE | BAD_MASKS]


@pytest.mark.parametrize(("read", "error", "make", "named", "said"), CASES, ids=NAMES)
def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, read: Any, error: type[Exception], make: Callable[[Path], Any], named: str, said: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(error) as caught:
        read(make(folder))
    message = str(caught.value)
    assert "\n" not in message
    assert named in message
    assert said in message


@pytest.mark.parametrize(
    ("values", "threshold", "said"),
    [
        (np.array([[0, 40, 255]]), 0.5, "as stored"),
        (np.array([[0, 40, 255]]), 0, "as stored"),
        (np.array([[0, 1]]), 128, "far above"),
        (np.array([[0.2, 0.9]]), 128, "far above"),
        (MASK, float("nan"), "finite number"),
        (MASK, "128", "finite number"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(values: np.ndarray, threshold: Any, said: str) -> None:
    with pytest.raises(MaskError, match=said):
        read_mask(values, threshold=threshold)


@settings(QUICK, max_examples=150)
@given(data=st.data(), format=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"]))
def test_damaged_files_raise_nothing_but_our_error(data: st.DataObject, format: str) -> None:
    encoded = bytearray(encode(Image.fromarray(PHOTO), format))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(encoded[: data.draw(st.integers(0, len(encoded)))])
    for read, error in ((read_image, ImageError), (read_mask, MaskError)):
        try:
            read(damaged, max_pixels=10_000)
        except error as refused:
            assert "\n" not in str(refused)


# Sizes


def test_photo_and_mask_of_one_size_pass() -> None:
    check_same_size(PHOTO, MASK)


def test_a_wrong_size_is_named_as_width_x_height() -> None:
    with pytest.raises(SizeMismatchError) as caught:
        check_same_size(PHOTO, MASK[:4], image_source="photo.jpg", mask_source=Path("mask.png"))
    message = str(caught.value)
    assert "mask 'mask.png' is 9x4 but image 'photo.jpg' is 9x6 (width x height)" in message
    assert "EXIF" not in message
    assert "\n" not in message


def test_a_mask_of_the_unturned_photo_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(PHOTO).save(path, exif=with_exif(6))
    image = read_image(path)
    with pytest.raises(SizeMismatchError, match=r"mask is 9x6 but .*photo.jpg' is 6x9 .* EXIF tag turns it"):
        check_same_size(image, MASK, image_source=path)
    with pytest.raises(SizeMismatchError) as caught:
        check_same_size(image, MASK)
    assert "EXIF" not in str(caught.value)
    path.unlink()
    with pytest.raises(SizeMismatchError):
        check_same_size(image, MASK, image_source=path)
