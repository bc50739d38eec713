"""How data sets lie on a disk, and what photos are called in them."""

import base64
import json
from pathlib import Path

import pytest

from helpers.annotated import HEIGHT, POLYGON, SIZE, WIDTH, coco, cvat, disc, labelme, labelstudio, write_photos, yolo
from segrefiner.errors import InputError, OutputError
from segrefiner.formats.masks import decode_mask
from segrefiner.formats.recognition import new_masks, read
from segrefiner.jobs.annotations import PhotoFinder, annotations_job

LINE = "0 0.1 0.1 0.1 0.80 0.6 0.80 0.6 0.1\n"


def found(source: Path, images: Path | None = None) -> list[Path]:
    contents = read(source).contents
    return [PhotoFinder(contents, images).find(photo)[0] for photo in contents.photos]


@pytest.mark.parametrize(
    ("label", "photo"),
    [
        ("labels/train/a.txt", "images/train/a.jpg"),
        ("train/labels/a.txt", "train/images/a.png"),
        ("labels/a.txt", "a.JPG"),
        ("labels/a.b.c.txt", "images/a.b.c.webp"),
        ("labels/labels/a.txt", "labels/images/a.png"),
        ("labels/deep/er/a.txt", "images/deep/er/a.tif"),
    ],
)
def test_yolo_photos_lie_beside_labels(label: str, photo: str, tmp_path: Path) -> None:
    (tmp_path / label).parent.mkdir(parents=True)
    (tmp_path / label).write_text(LINE)
    (tmp_path / photo).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / photo).touch()
    assert found(tmp_path) == [tmp_path / photo]


def test_a_yolo_data_set_is_its_description_too(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    by_file, by_folder = read(folder / "data.yaml"), read(folder)
    assert by_file.contents == by_folder.contents
    assert by_file.contents.labels == ("cat", "dog")
    (folder / "data.yaml").write_text("names: [cat, dog]")
    assert read(folder).contents.labels == ("cat", "dog")
    (folder / "data.yaml").unlink()
    assert {one.label for photo in read(folder).contents.photos for one in photo.instances} == {"0", "1"}


def test_a_folder_labels_may_be_named_itself_with_its_photos(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    assert [path.name for path in found(folder / "labels", folder / "images")] == ["a.png", "b.png"]


def test_lists_of_photos_are_no_labels(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "train.txt").write_text("images/train/a.png\n")
    (folder / "labels" / "train.cache").write_bytes(b"\0")
    assert len(read(folder).contents.photos) == 2


def test_a_photo_in_a_labelme_file_serves_where_no_folder_is_named(tmp_path: Path) -> None:
    folder = labelme(tmp_path)
    document = json.loads((folder / "a.json").read_text())
    document["imageData"] = base64.b64encode((folder / "a.png").read_bytes()).decode()
    (folder / "a.json").write_text(json.dumps(document))
    (folder / "a.png").unlink()
    assert found(folder) == [folder / "a.json", folder / "b.png"]
    job = annotations_job(folder, tmp_path / "out")
    loaded = job.work.load(job.items[0], [b""])
    assert loaded[0].pixels.shape == (HEIGHT, WIDTH, 3) and len(loaded[1]) == 2
    document["imageData"] = "no base 64!"
    (folder / "a.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="imageData"):
        job.work.load(job.items[0], [b""])


def test_a_labelme_photo_in_the_next_folder_needs_that_folder(tmp_path: Path) -> None:
    folder = labelme(tmp_path)
    write_photos(tmp_path / "photos", "a.png")
    text = (folder / "a.json").read_text(encoding="utf-8")
    for name in ("../photos/a.png", "..\\\\photos\\\\a.png"):
        (folder / "a.json").write_text(text.replace('"a.png"', f'"{name}"'), encoding="utf-8")
        (folder / "b.json").unlink(missing_ok=True)
        assert found(folder, tmp_path / "photos") == [tmp_path / "photos" / "a.png"]
        with pytest.raises(OutputError, match="leads out of"):
            found(folder)


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/7/0a1b2c3d-my%20photo.png", "/data/upload/0a1b2c3d-my photo.png", "my photo.png",
        "http://localhost:8080/data/upload/7/0a1b2c3d-my%20photo.png", "s3://bucket/deep/my photo.png",
        "/data/local-files/?d=deep/my%20photo.png", "gs://bucket/my%20photo.png", "https://host/x/my%20photo.png?token=5",
    ],
)  # fmt: skip
def test_label_studio_photos_are_found_by_their_address(address: str, tmp_path: Path) -> None:
    source = labelstudio(tmp_path)
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "my photo.png")
    document = json.loads(source.read_text())
    document[0]["data"]["image"] = address
    source.write_text(json.dumps(document))
    assert found(source, tmp_path / "images")[0] == tmp_path / "images" / "my photo.png"


def test_x_anylabeling_s_fields_are_kept_and_read(tmp_path: Path) -> None:
    write_photos(tmp_path, "a.png")
    document = {
        "version": "2.4.4", "flags": {}, "shapes": [
            {"kie_linking": [], "label": "cat", "score": 0.87, "points": POLYGON, "group_id": None, "description": "",
             "difficult": False, "shape_type": "polygon", "flags": {}, "attributes": {"color": "red"}},
            {"label": "tilted", "points": POLYGON, "shape_type": "rotation", "direction": 0.5},
        ],
        "imagePath": "a.png", "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH,
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(document))
    contents = read(tmp_path / "a.json").contents
    ((instance,),) = (photo.instances for photo in contents.photos)
    assert (instance.label, instance.score) == ("cat", 0.87)
    assert list(contents.left_out.values()) == ["a rotation, which stays as it is"]


@pytest.mark.parametrize("name", ["images/a.png", "deep/images/a.png", "images\\\\a.png"])
def test_names_may_begin_with_the_folder_that_is_named(name: str, tmp_path: Path) -> None:
    for make in (coco, cvat):
        source = make(tmp_path / make.__name__)
        text = source.read_text(encoding="utf-8")
        written = name if make is coco else name.replace("\\\\", "\\")
        source.write_text(text.replace('"a.png"', f'"{written}"', 1), encoding="utf-8")
        images = tmp_path / make.__name__ / "images"
        assert found(source, images)[0] == images / "a.png"


def test_a_mark_at_the_beginning_of_a_text_stays(tmp_path: Path) -> None:
    source = cvat(tmp_path)
    content = b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n", b"\r\n")
    source.write_bytes(content)
    document = read(source)
    masks = {("b.png", document.contents.photos[1].instances[0].key): disc(9)}
    document.write(tmp_path / "out.xml", new_masks(document, masks))
    written = (tmp_path / "out.xml").read_bytes()
    assert written.startswith(b"\xef\xbb\xbf<?xml") and written.count(b"\r\n") == content.count(b"\r\n")
    assert read(tmp_path / "out.xml").contents.photos[0] == document.contents.photos[0]
    new = read(tmp_path / "out.xml").contents.photos[1].instances[0]
    assert (decode_mask(new.mask, SIZE)[0] == disc(9)).all()
