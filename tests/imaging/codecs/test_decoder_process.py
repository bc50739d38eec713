"""Foreign bytes have a bound in memory and in time, and what is no pixel decides nothing."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers.child_work import MIB, PIXELS, SpinningWork, fail, fill, mixed, photo, spin
from helpers.hostile import EXIF, HOSTILE, bmp_rows, exif_of_tags, gif_comment, jpeg_segments, png, webp_with
from helpers.serving import PHOTO, encoded
from segrefiner.errors import ImageError, InputError
from segrefiner.imaging.codecs import decoder_process, pictures
from segrefiner.imaging.codecs.decoder_process import Decoder, KilledError, guard_this_process, within_limits
from segrefiner.imaging.codecs.exif import exif_of, orientation_in
from segrefiner.imaging.reading import exif_turned, read_image
from segrefiner.jobs.job import Item
from segrefiner.jobs.local import LocalEngine

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(1, PIXELS)
    yield made
    made.close()


def peak(decoder: Decoder) -> int:
    status = Path(f"/proc/{decoder._all[0]._process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak(decoder: Decoder) -> None:
    Path(f"/proc/{decoder._all[0]._process.pid}/clear_refs").write_text("5")


@linux
@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "BMP: rows padded byte by byte"])
def test_hostile_files_take_little_and_the_next_file_is_read(decoder: Decoder, name: str) -> None:
    content = HOSTILE[name]()
    np.testing.assert_array_equal(decoder.run(photo, encoded(PHOTO)), PHOTO)
    forget_peak(decoder)
    before = peak(decoder)
    try:
        read = decoder.run(photo, content)
        assert read.dtype == np.uint8 and read.size <= 3 * PIXELS
    except (InputError, KilledError):
        pass
    # What the file itself takes, a few times over, and what 40 megapixels do.
    assert peak(decoder) - before < 8 * len(content) + 350 * MIB
    np.testing.assert_array_equal(decoder.run(photo, encoded(PHOTO)), PHOTO)


REFUSED = [name for name in HOSTILE if name.startswith(("BMP: a jump", "TIFF: 1", "TIFF: 4", "TIFF: 6", "TIFF: the",
           "TIFF: a tag", "BigTIFF", "JPEG: 20,000", "JPEG: half", "PPM"))]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_decoders_are_not_asked_about_files_that_take_more_than_their_pixels(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(pictures, "_identify", lambda *_: pytest.fail("a decoder was asked"))
    with pytest.raises(ImageError, match="save it again as PNG") as caught:
        read_image(HOSTILE[name]())
    assert "\n" not in str(caught.value)


LEGAL = {
    "PNG": lambda: png((b"zTXt", b"a\0\0" + bytes(1_200_000)), (b"eXIf", EXIF * 10_000), (b"iCCP", bytes(2_000_000))),
    "PNG behind": lambda: png((b"tEXt", b"a\0" + b"b" * 3_000_000), behind=True),
    "JPEG": lambda: jpeg_segments(b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 60_000, 50),
    "JPEG comments": lambda: jpeg_segments(b"x" * 60_000, 50, 0xFE),
    "JPEG profile": lambda: jpeg_segments(b"ICC_PROFILE\0" + bytes(60_000), 50, 0xE2),
    "WebP": lambda: webp_with(b"XMP ", b"x" * 2_000_000),
    "WebP EXIF": lambda: webp_with(b"EXIF", exif_of_tags(20, 1_000_000)),
    "GIF": lambda: gif_comment(2_000_000),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_files_with_long_side_data_are_read(name: str) -> None:
    content = LEGAL[name]()
    with Image.open(io.BytesIO(content)) as picture:
        assert read_image(content).shape == (picture.height, picture.width, 3)


@pytest.mark.parametrize(
    "format", ["EPS", "ICO", "ICNS", "PSD", "JPEG2000", "PCX", "TGA", "PDF", "DDS", "SGI", "IM", "XBM"]
)
def test_decoders_that_are_not_on_the_list_are_never_asked(format: str, monkeypatch: Any) -> None:
    Image.init()
    if format not in Image.SAVE:
        content = b"8BPS\0\1" + bytes(100)
    else:
        stream = io.BytesIO()
        Image.new("1" if format == "XBM" else "RGB", (32, 32)).save(stream, format)
        content = stream.getvalue()
    for name in set(Image.OPEN) - set(pictures.FORMATS):
        monkeypatch.setitem(Image.OPEN, name, (lambda *_: pytest.fail("asked"), Image.OPEN[name][1]))
    with pytest.raises(ImageError):
        read_image(content)


# Orientation is read without anything else of EXIF


@settings(max_examples=60)
@given(
    format=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    orientation=st.integers(0, 9),
    headings=st.integers(0, 3),
    little=st.booleans(),
    junk=st.binary(max_size=20),
)
def test_orientations_are_those_that_pillow_finds(
    format: str, orientation: int, headings: int, little: bool, junk: bytes
) -> None:
    exif = Image.Exif()
    exif.endian = "<" if little else ">"
    exif[0x010F], exif[0x0112], exif[0x9000] = "maker" + "x" * len(junk), orientation, b"0230"
    block = (b"Exif\0\0" if format == "JPEG" else EXIF * headings) + exif.tobytes().removeprefix(EXIF) + junk
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, format, exif=block, **({"lossless": True} if format == "WEBP" else {}))
    with Image.open(io.BytesIO(stream.getvalue())) as picture:
        expected = ImageOps.exif_transpose(picture)
        np.testing.assert_array_equal(read_image(stream.getvalue()), np.asarray(expected.convert("RGB")))
    assert exif_turned(stream.getvalue()) == (orientation in (5, 6, 7, 8))


@given(st.binary(max_size=200))
def test_damaged_exif_says_nothing(content: bytes) -> None:
    assert orientation_in(content) in (None, *range(1, 9))
    for cut in range(len(exif_of(6))):
        assert orientation_in(exif_of(6)[:cut]) in (None, 6)


# Processes that can be killed


@posix
def test_what_takes_too_long_is_killed(decoder: Decoder, monkeypatch: Any) -> None:
    with pytest.raises(KilledError):
        decoder.run(spin, 10**15)
    assert decoder.run(spin, 10) == 0
    assert decoder.run(spin, 10) == 0


@linux
def test_what_takes_too_much_memory_is_refused(decoder: Decoder) -> None:
    assert decoder.run(fill, 20) == 20
    with pytest.raises(KilledError):
        decoder.run(fill, 2000)
    assert decoder.run(fill, 20) == 20


@posix
def test_a_process_that_hangs_ends_by_the_clock(monkeypatch: Any) -> None:
    import time

    monkeypatch.setattr(decoder_process, "_WALL_SECONDS", 0.3)
    monkeypatch.setattr(decoder_process, "_WALL_FACTOR", 0.0)
    hanging = Decoder(1, 1000)
    with pytest.raises(KilledError):
        hanging.run(time.sleep, 1000)
    hanging.close()


def test_values_come_back_as_they_are_and_faults_with_what_they_say(decoder: Decoder) -> None:
    text, arrays, nothing, number, empty = decoder.run(mixed)
    np.testing.assert_array_equal(arrays[0], np.arange(3))
    assert arrays[1].dtype == bool and arrays[1].all()
    assert (text, nothing, number) == ("a", None, 1.5) and empty.shape == (0, 3) and empty.dtype == np.uint16
    with pytest.raises(ImageError, match=r"^said$"):
        decoder.run(fail, "input")
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: inside"):
        decoder.run(fail, "other")
    for kind in ("death", "object"):
        with pytest.raises((KilledError, RuntimeError)):
            decoder.run(fail, kind)
        assert decoder.run(spin, 1) == 0


def test_a_process_that_died_while_idle_is_replaced(decoder: Decoder) -> None:
    os.kill(decoder._all[0]._process.pid, signal.SIGKILL)
    decoder._all[0]._process.wait()
    assert decoder.run(spin, 1) == 0


def test_a_process_that_is_not_guarded_is_left_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(signal, "setitimer", lambda *_: pytest.fail("limited"))
    with within_limits(10):
        pass
    read_image(encoded(PHOTO))


@linux
def test_limits_are_lifted_when_a_picture_is_read(monkeypatch: Any) -> None:
    import resource

    monkeypatch.setattr(decoder_process, "_guarded", None)
    guard_this_process(1_000_000)
    before = resource.getrlimit(resource.RLIMIT_AS)
    for content in (encoded(PHOTO), encoded(PHOTO)[:100], b"nothing"):
        with pytest.raises(ImageError) if content != encoded(PHOTO) else within_limits(1):
            read_image(content)
        assert resource.getrlimit(resource.RLIMIT_AS) == before
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


@pytest.mark.slow
@posix
def test_in_a_job_only_the_file_fails_that_takes_too_long() -> None:
    items = [Item(str(number), (), number == 1) for number in range(3)]
    engine: Callable[..., Any] = LocalEngine(None, workers=1)  # type: ignore[arg-type]
    outcomes = {one.key: one for one in engine(SpinningWork(), items, lambda: False)}
    assert "takes more time or memory to decode" in outcomes["1"].error
    assert all(outcomes[key].saved is not None for key in ("0", "2"))


def test_run_lengths_that_end_each_row_are_read() -> None:
    read = read_image(bmp_rows(600, 80))
    assert read.shape == (80, 600, 3)
