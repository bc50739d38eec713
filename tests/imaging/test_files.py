"""Laws of writing: whole or not at all, and a bad place is told before the work is done."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from PIL import Image

from segrefiner.errors import OutputError
from segrefiner.imaging.files import (
    PICTURE_FORMATS,
    atomic_write,
    check_output,
    check_picture,
    write_picture,
    write_png,
)
from segrefiner.imaging.reading import read_image, read_mask

QUICK = settings(max_examples=40)
MASK = np.random.default_rng(0).random((6, 9)) < 0.5
PHOTOS = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12).map(lambda sides: (*sides, 3))


@QUICK
@given(photo=arrays.arrays(np.uint8, PHOTOS))
def test_a_written_photo_reads_back(tmp_path: Path, photo: np.ndarray) -> None:
    write_png(tmp_path / "photo.PNG", photo)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.PNG"), photo)
    write_png(tmp_path / "grey.png", photo[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 0], photo[..., 0])


def test_sixteen_bits_and_alpha_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    probability = random.random((5, 6)).astype(np.float32)
    probability[0, :2] = 0.5, np.nextafter(np.float32(0.5), np.float32(0))
    write_png(tmp_path / "soft.png", probability, bits=16)
    with Image.open(tmp_path / "soft.png") as picture:
        assert picture.mode == "I;16"
        values = np.asarray(picture)
    np.testing.assert_allclose(values / 65535, probability, atol=0.6 / 65535)
    assert values[0, 0] == 32768 > values[0, 1]
    colours = random.integers(0, 256, (5, 6, 4)).astype(np.uint8)
    write_png(tmp_path / "cut.png", colours)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "cut.png")), colours)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4), bool),
        np.full((4, 4), 1.5),
        np.full((4, 4), np.nan),
    ],
    ids=["five channels", "int64", "float colour", "empty", "too large", "nan"],
)
def test_arrays_that_make_no_png_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(OutputError, match=r"a\.png") as caught:
        write_png(tmp_path / "a.png", array)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def below_a_file(folder: Path) -> Path:
    (folder / "b.png").write_bytes(b"old")
    return folder / "b.png" / "a.png"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


BAD_OUTPUTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "suffix": (lambda folder: folder / "a.jpg", "must end in .png"),
    "no name": (lambda _: "", "must end in .png"),
    "missing folder": (lambda folder: folder / "none" / "a.png", "does not exist"),
    "below a file": (lambda folder: below_a_file(folder), "is not a folder"),
    "a folder": (lambda folder: folder, "is a folder"),
    "a pipe": (pipe, "device or pipe"),
    "null byte": (lambda folder: f"{folder}/a\0.png", "a\\x00.png"),
    "too long": (lambda folder: folder / ("a" * 300 + ".png"), "cannot be written"),
}


@pytest.mark.parametrize(("make", "said"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS.keys())
def test_bad_outputs_are_refused_up_front(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    folder = tmp_path / "folder.png"
    folder.mkdir()
    path = make(folder)
    before = sorted(folder.iterdir())
    for attempt in (lambda: check_output(path), lambda: write_png(path, MASK)):
        with pytest.raises(OutputError) as caught:
            attempt()
        message = str(caught.value)
        assert "\n" not in message
        assert repr(str(path)) in message
        assert said in message
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("protected", ["folder", "file"])
def test_write_protected_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    locked = path if protected == "file" else tmp_path
    allowed = os.access
    # Real permission bits would not stop a test that runs as root.
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != locked and allowed(place, mode))
    with pytest.raises(OutputError, match="write-protected"):
        check_output(path)
    with pytest.raises(OutputError, match="write-protected"):
        write_png(path, MASK)
    assert path.read_bytes() == b"old"


def test_a_good_output_passes_and_is_not_touched(tmp_path: Path) -> None:
    check_output(tmp_path / "a.png")
    check_output(str(tmp_path / "a.safetensors"), suffix=".safetensors")
    check_output(tmp_path / "anything", suffix=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError),
        (RuntimeError("bug"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["disk full", "bug", "interrupted"],
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException, raised: type[BaseException]
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def write(stream: Any) -> None:
        stream.write(b"new")
        raise failure

    with pytest.raises(raised) as caught:
        atomic_write(path, write)
    if raised is OutputError:
        assert "a.json" in str(caught.value) and "No space left" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_png(tmp_path / "a.png", MASK)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "real" / "a.png")
    for mask in (MASK, ~MASK):  # first the target is made, then replaced
        write_png(link, mask)
        assert link.is_symlink()
        np.testing.assert_array_equal(read_mask(tmp_path / "real" / "a.png"), mask)


@pytest.mark.parametrize(
    ("name", "alpha", "size", "said"),
    [
        ("a.jpg", True, None, "transparent"),
        ("a.JPEG", True, None, "transparent"),
        ("a.gif", False, None, "must end in"),
        ("a", False, None, "must end in"),
        ("a.webp", False, (20_000, 5), "5x20000"),
        ("a.jpg", False, (5, 70_000), "at most 65535"),
        ("none/a.webp", False, None, "does not exist"),
    ],
)
def test_pictures_that_no_format_takes_are_told_before_the_work(
    tmp_path: Path, name: str, alpha: bool, size: tuple[int, int] | None, said: str
) -> None:
    with pytest.raises(OutputError, match=said) as caught:
        check_picture(tmp_path / name, "picture", alpha=alpha, size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", list(PICTURE_FORMATS))
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_are_written_as_their_names_say(tmp_path: Path, suffix: str, channels: int) -> None:
    array = np.zeros((30, 40, channels), np.uint8)
    array[5:25, 10:30] = 200
    path = tmp_path / f"a{suffix}"
    if channels == 4 and PICTURE_FORMATS[suffix] == "JPEG":
        return
    write_picture(path, array, "picture")
    with Image.open(path) as picture:
        assert picture.format == PICTURE_FORMATS[suffix] and picture.size == (40, 30)
        read = np.asarray(picture)
    # The colours of what is wholly transparent are nobody's concern.
    seen = array[..., -1] > 0
    assert read.shape == array.shape and np.abs(read[seen].astype(int) - array[seen]).max() < 60
    if channels == 4:
        np.testing.assert_array_equal(read[..., 3], array[..., 3])
    if suffix in (".png", ".tiff"):
        np.testing.assert_array_equal(read, array)
