"""Colour profiles: the network sees sRGB, cut-outs and overlays what the photo stores, and odd ones are left out."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms, features

from segrefiner.cli.main import main
from segrefiner.imaging.colours import LARGEST_PROFILE, profile_of, to_srgb
from segrefiner.imaging.reading import Photo, read_image, read_photo

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped(profile: bytes) -> bytes:
    """A profile in which red and blue change places: colours that nobody can mistake for sRGB."""
    return profile.replace(b"rXYZ", b"tmpX").replace(b"bXYZ", b"rXYZ").replace(b"tmpX", b"bXYZ")


WIDE = swapped(srgb_profile())


def of_space(space: bytes) -> bytes:
    return WIDE[:16] + space + WIDE[20:]


def file_of(pixels: np.ndarray, format: str, profile: bytes | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=format, **({"icc_profile": profile} if profile else {}), **options)
    return stream.getvalue()


FORMATS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
if "avif" in features.modules and features.check("avif"):  # Pillow has it from 11.3 on
    FORMATS["AVIF"] = {"quality": 100}


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_stay_as_stored_and_the_network_sees_srgb(format: str) -> None:
    content = file_of(PIXELS, format, WIDE, **FORMATS[format])
    photo, plain = read_photo(content), read_photo(file_of(PIXELS, format, **FORMATS[format]))
    assert photo.profile == WIDE and plain.profile is None and not photo.notes
    np.testing.assert_array_equal(photo.pixels, plain.pixels)
    np.testing.assert_array_equal(read_image(content), plain.pixels)
    transform = ImageCms.profileToProfile(
        Image.fromarray(plain.pixels),
        ImageCms.ImageCmsProfile(io.BytesIO(WIDE)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert transform is not None
    np.testing.assert_array_equal(photo.srgb(), np.asarray(transform))
    assert plain.srgb() is plain.pixels


def test_srgb_s_own_profile_changes_no_pixel() -> None:
    photo = read_photo(file_of(PIXELS, "PNG", srgb_profile()))
    assert photo.profile is not None and photo.srgb() is photo.pixels


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = to_srgb(PIXELS, WIDE)
    monkeypatch.setattr("segrefiner.imaging.colours._BAND_PIXELS", 100)
    np.testing.assert_array_equal(to_srgb(PIXELS, WIDE), whole)


def test_a_photo_travels_between_processes_with_its_profile() -> None:
    photo = read_photo(file_of(PIXELS, "PNG", WIDE))
    again = Photo.from_parts(photo.parts())
    assert again.profile == WIDE and again.notes == photo.notes
    assert Photo.from_parts(Photo(PIXELS).parts()).profile is None


def test_a_pillow_image_brings_its_profile() -> None:
    picture = Image.open(io.BytesIO(file_of(PIXELS, "PNG", WIDE)))
    assert read_photo(picture).profile == WIDE


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (b"x", "damaged"),
        (WIDE[:100], "damaged"),
        (WIDE[:-200], "damaged"),
        (WIDE[:200] + bytes(len(WIDE) - 200), "cannot be used"),
        (WIDE[:36] + b"none" + WIDE[40:], "damaged"),
        (WIDE[:12] + b"link" + WIDE[16:], "damaged"),
        (of_space(b"CMYK"), "CMYK"),
        (of_space(b"GRAY"), "greys"),
        (of_space(b"Lab "), "Lab"),
        (of_space(b"\0\xff\x1b["), "another kind"),
        (WIDE + bytes(LARGEST_PROFILE), "MB, which is left out"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_odd_profiles_are_left_out_with_a_note(profile: bytes, said: str, format: str) -> None:
    photo = read_photo(file_of(PIXELS, format, profile, **FORMATS[format]))
    assert photo.profile is None and photo.srgb() is photo.pixels
    assert len(photo.notes) == 1 and said in photo.notes[0] and photo.notes[0].isprintable()
    # Who asks for the values alone gets them, whatever they look like.
    read_image(file_of(PIXELS, format, profile, **FORMATS[format]))


def test_every_profile_that_a_byte_was_changed_in_is_used_or_left_out() -> None:
    for _ in range(150):
        damaged = bytearray(WIDE)
        for place in RNG.integers(0, len(WIDE), 3):
            damaged[place] = RNG.integers(256)
        usable, note = profile_of(bytes(damaged))
        assert (usable is None) == bool(note)
        assert to_srgb(PIXELS[:4], usable).shape == (4, 60, 3)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    content = file_of(PIXELS, "PNG")
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return content[:33] + b"".join(parts) + content[33:]


def jpeg_with(*segments: bytes) -> bytes:
    content = file_of(PIXELS, "JPEG")
    parts = [b"\xff\xe2" + struct.pack(">H", len(s) + 14) + b"ICC_PROFILE\0" + s for s in segments]
    return content[:2] + b"".join(parts) + content[2:]


@pytest.mark.parametrize(
    "make",
    [
        lambda: png_with((b"iCCP", b"name")),
        lambda: png_with((b"iCCP", b"name\0\0no zlib")),
        lambda: png_with((b"iCCP", b"name\0\0" + zlib.compress(WIDE)[:-300])),
        lambda: png_with((b"iCCP", b"name\0\0" + zlib.compress(bytes(1 << 28), 9))),
        lambda: jpeg_with(b"\1\2" + WIDE[:300]),
        lambda: jpeg_with(b"\2\1" + WIDE),
        lambda: jpeg_with(b"\0\0" + WIDE),
        lambda: jpeg_with(b""),
    ],
    ids=["no content", "no zlib", "cut", "bomb", "half", "wrong number", "zeros", "empty"],
)
def test_profiles_that_the_file_itself_breaks(make: Callable[[], bytes]) -> None:
    photo = read_photo(make())
    assert photo.profile is None and len(photo.notes) == 1


def test_a_profile_in_pieces_in_any_order_is_one() -> None:
    halves = (b"\2\2" + WIDE[300:], b"\1\2" + WIDE[:300])
    assert read_photo(jpeg_with(*halves)).profile == WIDE


def grey_and_cmyk() -> list[bytes]:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(stream, format="JPEG", icc_profile=of_space(b"CMYK"))
    return [file_of(PIXELS[..., 0].copy(), "PNG", of_space(b"GRAY")), stream.getvalue()]


@pytest.mark.parametrize("content", grey_and_cmyk(), ids=["grey", "CMYK"])
def test_photos_of_other_colours_are_read(content: bytes) -> None:
    photo = read_photo(content)
    assert photo.pixels.shape == PIXELS.shape and photo.profile is None and len(photo.notes) == 1


# The command line


def turned_photo(path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = np.full((40, 60, 3), 60, np.uint8)
    picture[10:30, 15:45] = (200, 90, 20)
    path.write_bytes(file_of(picture, format, WIDE, exif=exif))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".jpg"])
def test_cutout_and_overlay_look_as_the_photo_does_and_stand_upright(tmp_path: Path, suffix: str) -> None:
    turned_photo(tmp_path / "photo.jpg", "JPEG")
    mask = np.zeros((60, 40), bool)
    mask[14:46, 9:31] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    outputs = [tmp_path / f"overlay{suffix}"] + ([tmp_path / f"cutout{suffix}"] if suffix != ".jpg" else [])
    given = ["refine", tmp_path / "photo.jpg", tmp_path / "mask.png", "-o", tmp_path / "out.png", "--strength", 0]
    for path in outputs:
        given += [f"--{path.stem}", path]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 0, result.output
    for path in outputs:
        with Image.open(path) as picture:
            assert picture.info["icc_profile"] == WIDE
            assert picture.getexif().get(0x0112, 1) == 1
            if path.stem == "cutout":
                assert picture.size == (40, 60) and picture.mode == "RGBA"
                stored = read_photo(tmp_path / "photo.jpg").pixels[30, 20]
                assert np.abs(np.asarray(picture)[30, 20, :3].astype(int) - stored).max() <= 4


def test_cutouts_of_a_folder_keep_colours_and_say_what_was_left_out(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    turned_photo(tmp_path / "images" / "a.jpg", "JPEG")
    (tmp_path / "images" / "b.jpg").write_bytes(file_of(PIXELS, "JPEG", of_space(b"CMYK")))
    for name, size in (("a", (60, 40)), ("b", (40, 60))):
        mask = np.zeros(size, bool)
        mask[10:-10, 10:-10] = True
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    given = ["folder", tmp_path / "images", tmp_path / "masks", "-o", tmp_path / "out", "--write", "cutout"]
    result = CliRunner().invoke(main, [*map(str, given), "--workers", "0", "--strength", "0"])
    assert result.exit_code == 0 and "CMYK" in result.stderr
    for name, profile in (("a", WIDE), ("b", None)):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.info.get("icc_profile") == profile


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_cutouts_of_deep_photos_have_the_scale_of_screens(tmp_path: Path, bits: int) -> None:
    deep = np.linspace(0, 2**bits - 1, 40 * 60).reshape(40, 60).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "photo.png")
    mask = np.zeros((40, 60), bool)
    mask[5:-5, 5:-5] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    paths = [tmp_path / name for name in ("photo.png", "mask.png", "out.png", "cutout.png")]
    given = ["refine", *paths[:2], "-o", paths[2], "--cutout", paths[3], "--strength", 0]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 0 and f"{bits} bits" in result.stdout
    cut = np.asarray(Image.open(paths[3]))
    wanted = np.rint(deep / (2**bits - 1) * 255)
    # Unscaled values would be a quarter of these, or less.
    inside = cut[..., 3] > 127
    assert inside.sum() > 500 and np.abs(cut[inside][:, 0] - wanted[inside]).mean() < 10


def test_the_network_sees_srgb_at_every_door(monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.tiny import TINY
    from segrefiner.model.unet import DenoisingUNet
    from segrefiner.refinement.label_maps import refine_labels
    from segrefiner.refinement.pipelines.tasks import MaskTask, TaskResult
    from segrefiner.refinement.refiner import Refiner

    content = file_of(PIXELS, "PNG", WIDE)
    wanted = to_srgb(PIXELS, WIDE)
    seen: list[np.ndarray] = []

    def pipeline(network: object, jobs: list[MaskTask], **options: object) -> object:
        for job in jobs:
            seen.append(job.image.permute(1, 2, 0).numpy())
            yield TaskResult(job.mask.float(), (), 1)

    refiner = Refiner(DenoisingUNet(TINY), steps=1, pipeline=pipeline)  # type: ignore[arg-type]
    mask = np.zeros((40, 60), bool)
    mask[10:30, 15:45] = True
    for image in (content, Image.open(io.BytesIO(content)), read_photo(content)):
        refiner(image, mask)
        np.testing.assert_array_equal(seen.pop(), wanted)
    refine_labels(refiner, content, mask.astype(np.uint8))
    assert seen
    for one in seen:
        np.testing.assert_array_equal(one, wanted)


def test_photos_in_windows_have_the_colours_of_whole_ones(tmp_path: Path) -> None:
    pytest.importorskip("pyvips")
    from segrefiner.imaging.boxes import Box
    from segrefiner.imaging.vips import LargePicture

    for name, profile, notes in (("a.tif", WIDE, 0), ("b.tif", of_space(b"CMYK"), 1)):
        (tmp_path / name).write_bytes(file_of(PIXELS, "TIFF", profile))
        large, whole = LargePicture.photo(tmp_path / name), read_photo(tmp_path / name)
        np.testing.assert_array_equal(large.parts(tmp_path)(Box(5, 3, 45, 33)), whole.srgb()[3:33, 5:45])
        assert len(large.small().notes) == notes == len(whole.notes)
