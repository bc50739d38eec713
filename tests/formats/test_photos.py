"""Photos are found by whatever spelling their names have, where one file alone is meant; all else is said."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from helpers.annotated import EVERY, coco, labelme, yolo
from segrefiner.errors import InputError
from segrefiner.formats.photos import PhotoFinder
from segrefiner.formats.recognition import read
from segrefiner.jobs.annotations import annotations_job


def photos_of(source: Path, images: Path | None = None) -> list[Path]:
    contents = read(source).contents
    finder = PhotoFinder(contents, images)
    return [finder.find(photo)[0] for photo in contents.photos]


def renamed(source: Path, old: str, new: str) -> None:
    """Let an annotation file, or all of a folder, call a photo otherwise."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.suffix in (".json", ".txt")]
    for path in files:
        if path.stem == Path(old).stem and path.suffix == ".txt":
            path.rename(path.with_stem(Path(new).stem))
        elif path.suffix != ".txt":
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(old, new.replace("\\", "\\\\") if path.suffix == ".json" else new), "utf-8")


SPELLINGS = {
    "upper case": ("photo.png", "PHOTO.PNG"),
    "suffix": ("photo.png", "photo.PNG"),
    "decomposed": ("ph\u00f6to.png", unicodedata.normalize("NFD", "ph\u00f6to.png")),
    "composed": (unicodedata.normalize("NFD", "ph\u00f6to.png"), "ph\u00f6to.png"),
    "both": ("ph\u00f6to.png", unicodedata.normalize("NFD", "PH\u00d6TO.png")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", EVERY)
def test_names_are_matched_where_one_photo_is_meant(name: str, spelling: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    written, called = SPELLINGS[spelling]
    old = next(path for path in photos_of(source) if path.stem in ("a", "sa_1"))
    renamed(source, old.name, written)
    old.rename(old.with_name(called))
    assert old.with_name(called) in photos_of(source)


@pytest.mark.parametrize("written", ["frame_000000", "a.v2"])
@pytest.mark.parametrize("name", ["coco", "labelme", "cvat"])
def test_names_may_lack_their_suffix(name: str, written: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    old = next(path for path in photos_of(source) if path.stem == "a")
    renamed(source, '"a.png"', f'"{written}"')
    photo = old.rename(old.with_name(f"{written}.PNG"))
    assert photo in photos_of(source)
    shutil.copyfile(photo, old.with_name(f"{written}.jpg"))
    with pytest.raises(InputError, match="may be any of"):
        photos_of(source)


@pytest.mark.parametrize("name", ["coco", "labelme", "cvat"])
def test_separators_of_windows_are_folders(name: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    old = next(path for path in photos_of(source) if path.stem == "a")
    (old.parent / "Deep").mkdir()
    old.rename(old.parent / "Deep" / "a.png")
    renamed(source, '"a.png"', '"deep\\a.png"')
    assert old.parent / "Deep" / "a.png" in photos_of(source)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG", ".Webp", ".bmp"])
def test_the_photo_of_a_yolo_text_may_have_any_suffix(suffix: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    photo = folder / "images" / "train" / "a.png"
    photo.rename(photo.with_suffix(suffix))
    assert photo.with_suffix(suffix) in photos_of(folder)


@pytest.mark.parametrize("other", ["a.jpg", "a.PNG", "a.jfif"])
def test_two_photos_of_a_yolo_text_are_told(other: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    shutil.copy(folder / "images" / "train" / "a.png", folder / "images" / "train" / other)
    job = annotations_job(folder, tmp_path / "out")
    (why,) = job.failures.values()
    assert "may be any of" in why and "a.png" in why and other in why


def test_a_very_name_comes_before_others(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    shutil.copy(folder / "images" / "train" / "a.png", folder / "images" / "train" / "A.jpg")
    assert folder / "images" / "train" / "a.png" in photos_of(folder)


def test_names_that_may_be_two_files_are_told(tmp_path: Path) -> None:
    source = coco(tmp_path)
    for called in ("A.png", "a.PNG"):
        shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / called)
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(InputError, match=r"may be any of A\.png, a\.PNG"):
        photos_of(source)


@pytest.mark.parametrize("name", ["yolo", "labelme", "sa1b"])
def test_links_to_folders_are_followed_and_cycles_named(name: str, tmp_path: Path) -> None:
    folder = EVERY[name](tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    for part in folder.iterdir() if name == "yolo" else [folder]:
        (root / part.name).symlink_to(part, target_is_directory=part.is_dir())
    whole = read(folder).contents
    found = read(root).contents
    assert sum(len(photo.instances) for photo in found.photos) == sum(len(photo.instances) for photo in whole.photos)
    assert len(photos_of(root)) == 2
    loop = next(root.iterdir()).resolve() if name == "yolo" else folder
    (loop / "loop").symlink_to(loop, target_is_directory=True)
    again = read(root).contents
    assert len(again.photos) == 2
    assert any("a link to a folder that it lies in" in why for why in again.left_out.values())
    job = annotations_job(root, tmp_path / "out")
    job.finish({})
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_photos_that_no_mask_is_of_are_named(tmp_path: Path) -> None:
    source = coco(tmp_path)
    images = tmp_path / "images"
    shutil.copy(images / "a.png", images / "c.png")
    (images / "raw.cr2").touch()
    os.mkfifo(images / "pipe.png")
    for given in (None, images):
        left_out = annotations_job(source, tmp_path / "out.json", images=given).left_out
        assert {Path(name).name for name in left_out} == {"c.png", "raw.cr2", "pipe.png"}
        assert left_out[str(images / "c.png")] == "a photo that no mask is of"
    (images / "deep").mkdir()
    shutil.copy(images / "a.png", images / "deep" / "d.png")
    assert str(images / "deep" / "d.png") in annotations_job(source, tmp_path / "out.json", images=images).left_out


def test_beside_labelme_files_photos_without_one_are_named(tmp_path: Path) -> None:
    folder = labelme(tmp_path)
    shutil.copy(folder / "a.png", folder / "c.png")
    (folder / "readme.txt").touch()
    left_out = annotations_job(folder, tmp_path / "out").left_out
    assert [name for name in left_out if name.startswith("/")] == [str(folder / "c.png")]
