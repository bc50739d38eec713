"""How data sets lie on a disk, and what photos are called in them."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.annotated import (
    HEIGHT,
    POLYGON,
    SIZE,
    WIDTH,
    coco,
    cvat,
    disc,
    labelme,
    labelstudio,
    lvis,
    sa1b,
    write_photos,
    yolo,
)
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


@pytest.mark.parametrize("given", ["folder", "file"])
@pytest.mark.parametrize("named", ["../yolo", "absolute"])
def test_a_yolo_description_may_lie_outside_of_its_data_set(given: str, named: str, tmp_path: Path) -> None:
    folder, place = yolo(tmp_path), tmp_path / "settings" / "pets.yaml"
    place.parent.mkdir()
    place.write_text(f"path: {named if named != 'absolute' else folder}\nnames: [cat, dog]\n")
    (folder / "data.yaml").unlink()
    source = place.parent if given == "folder" else place
    assert found(source) == [folder / "images" / "train" / "a.png", folder / "images" / "val" / "b.png"]
    contents = read(source).contents
    assert contents.labels == ("cat", "dog") and f"the data set of {place} is in {folder}" in contents.notes[-1]
    read(source).write(tmp_path / "out", {})
    for name in ("labels/train/a.txt", "labels/val/b.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "out" / "pets.yaml").read_bytes() == place.read_bytes()
    with pytest.raises(InputError, match=r"lies in the folder of the input|is an input"):
        annotations_job(source, folder)


@pytest.mark.parametrize("named", ["/nowhere", "absent", "", "a\\0b", "5", "[x]"])
def test_a_yolo_description_of_another_machine_is_of_its_own_folder(named: str, tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "data.yaml").write_text(
        f"path: {f'{chr(34)}{named}{chr(34)}' if '0' in named else named}\nnames: [cat, dog]\n"
    )
    assert found(folder / "data.yaml") == [folder / "images" / "train" / "a.png", folder / "images" / "val" / "b.png"]


def test_yolo_texts_may_lie_beside_their_photos(tmp_path: Path) -> None:
    """As darknet's do; captions and lists of photos are no labels."""
    write_photos(tmp_path, "data/a.png", "data/b.jpg", "data/c.png")
    texts = {"data/a.txt": LINE, "data/b.txt": "", "data/c.txt": "a photo of a cat\n", "train.txt": "data/a.png\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    for source in (tmp_path, tmp_path / "data", tmp_path / "data.yaml"):
        assert found(source) == [tmp_path / "data" / "a.png", tmp_path / "data" / "b.jpg"]
    read(tmp_path).write(tmp_path / "out", {})
    assert {name: (tmp_path / "out" / name).read_text() for name in texts} == texts


def test_a_folder_labels_may_be_named_itself_with_its_photos(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    assert [path.name for path in found(folder / "labels", folder / "images")] == ["a.png", "b.png"]


def test_lists_of_photos_are_no_labels(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "train.txt").write_text("images/train/a.png\n")
    (folder / "labels" / "train.cache").write_bytes(b"\0")
    assert len(read(folder).contents.photos) == 2


def test_names_of_yolo_s_classes_may_be_listed_elsewhere_and_numbered_in_words(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "data.yaml").write_text("names: {'0': cat, '1': dog}")
    assert read(folder).contents.labels == ("cat", "dog")
    (folder / "data.yaml").unlink()
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")
    contents = read(folder).contents
    assert contents.labels == ("cat", "dog") and len(contents.photos) == 2 and not contents.failures
    read(folder).write(tmp_path / "out", {})
    assert (tmp_path / "out" / "labels" / "classes.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize("shape", [[3, 3], [3, 2], [17, 3]])
def test_poses_of_yolo_are_no_polygons(shape: list[int], tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    pose = " ".join(["1 0.5 0.5 0.2 0.2", *["0.25"] * (shape[0] * shape[1])])
    (folder / "labels" / "val" / "b.txt").write_text(f"{pose}\n{pose} 0.9\n{LINE}")
    (folder / "data.yaml").write_text(f"names: [cat, dog]\nkpt_shape: {shape}\n")
    contents = read(folder).contents
    told = [contents.left_out.get(f"labels/val/b.txt line {line}") for line in (1, 2, 3)]
    assert told == ["a pose, which stays as it is"] * 2 + [None]
    assert [one.key for photo in contents.photos for one in photo.instances if "val" in photo.key] == ["3"]


def test_what_of_a_yolo_data_set_may_be_other_than_it_looks_is_noted(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(LINE + "7" + LINE[1:] + "9" + LINE[1:])
    (tmp_path / "data.yaml").write_text("names: [cat]")
    unnamed, oriented = read(tmp_path).contents.notes
    assert unnamed == "labels/a.txt line 2 and 1 more: the class is none of the 1 that are named"
    assert "four corners" in oriented and "oriented boxes" in oriented
    (tmp_path / "labels" / "a.txt").write_text(LINE + LINE.replace("\n", " 0.3 0.3\n"))
    assert read(tmp_path).contents.notes == ()


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


@pytest.mark.parametrize(
    ("data", "photo"),
    [
        ({"text": "hello", "url": "/data/upload/1/0a1b2c3d-a.png"}, "a.png"),
        ({"meta": {"x": 1}, "n": 5, "photo": "https://host/a.png?token=5"}, "a.png"),
        ({"image": ["a.png"]}, "a.png"),
        ({"image": ["a.png", "b.png"], "text": "b.png"}, None),
        ({"image": None, "text": "b.png"}, None),
    ],
)
def test_the_photo_of_a_label_studio_task_is_not_its_text(data: dict, photo: str | None, tmp_path: Path) -> None:
    source = labelstudio(tmp_path)
    document = json.loads(source.read_text())
    source.write_text(json.dumps([document[0] | {"data": data}]))
    contents = read(source).contents
    assert contents.photos or "one photo" in contents.failures["task 0"]
    assert [path.name for path in found(source)] == ([photo] if photo else [])


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


@pytest.mark.parametrize("make", [labelme, sa1b])
@pytest.mark.parametrize("name", ["images/{}", "deep/images/{}", "images\\{}", "C:\\data\\{}", "./{}"])
def test_folders_of_another_machine_are_left_off_beside_files(
    make: Callable[[Path], Path], name: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    images = tmp_path / "photos"
    images.mkdir()
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text())
        place, key = (document, "imagePath") if make is labelme else (document["image"], "file_name")
        (folder / place[key]).rename(images / place[key])
        place[key] = name.format(place[key])
        path.write_text(json.dumps(document))
    assert [path.parent for path in found(folder, images)] == [images] * 2


@pytest.mark.parametrize("name", ["images/a.png", "deep/images/a.png", "images\\\\a.png"])
def test_names_may_begin_with_the_folder_that_is_named(name: str, tmp_path: Path) -> None:
    for make in (coco, cvat):
        source = make(tmp_path / make.__name__)
        text = source.read_text(encoding="utf-8")
        written = name if make is coco else name.replace("\\\\", "\\")
        source.write_text(text.replace('"a.png"', f'"{written}"', 1), encoding="utf-8")
        images = tmp_path / make.__name__ / "images"
        assert found(source, images)[0] == images / "a.png"


def test_lvis_s_addresses_may_have_a_query(tmp_path: Path) -> None:
    source = lvis(tmp_path)
    source.write_text(source.read_text().replace("a.png", "a.png?size=1/2#top"))
    assert found(source)[0] == tmp_path / "val2017" / "a.png"


def test_whole_numbers_of_cvat_may_be_written_as_floats(tmp_path: Path) -> None:
    source = cvat(tmp_path)
    before = read(source).contents.photos[0].instances[1].mask
    source.write_text(re.sub(r'(left|top)="(\d+)"', r'\1="\2.0"', source.read_text(encoding="utf-8")), encoding="utf-8")
    after = read(source).contents.photos[0].instances[1].mask
    assert after != before and (decode_mask(after, SIZE)[0] == decode_mask(before, SIZE)[0]).all()


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


@pytest.mark.parametrize("make", [coco, lvis, cvat, labelstudio])
@pytest.mark.parametrize("below", ["", "annotations"])
def test_a_folder_with_one_file_of_annotations_is_that_file(
    make: Callable[[Path], Path], below: str, tmp_path: Path
) -> None:
    source = make(tmp_path / "made")
    place = tmp_path / "set" / below / ("annotations.xml" if source.suffix == ".xml" else source.name)
    place.parent.mkdir(parents=True)
    place.write_bytes(source.read_bytes())
    (tmp_path / "set" / "package.json").write_text('{"name": "another kind"}')
    given, alone = read(tmp_path / "set"), read(place)
    assert (given.format, given.contents) == (alone.format, alone.contents)
    place.with_name("instances_b.json").write_bytes(coco(tmp_path / "other").read_bytes())
    with pytest.raises(InputError, match=r"holds 2 files of annotations, .*: name one"):
        read(tmp_path / "set")


@pytest.mark.parametrize("split", ["train", "default", "val_small"])
@pytest.mark.parametrize("photos", ["images/{}", "{}"])
def test_photos_of_a_split_lie_in_the_folder_of_its_name(split: str, photos: str, tmp_path: Path) -> None:
    source = coco(tmp_path)
    place = tmp_path / "annotations" / f"instances_{split}.json"
    place.parent.mkdir()
    images = tmp_path / photos.format(split)
    (tmp_path / "images").rename(tmp_path / "moved")
    images.parent.mkdir(exist_ok=True)
    (tmp_path / "moved").rename(images)
    source.rename(place)
    assert {path.parent for path in found(place)} == {images}


def test_a_polygon_of_coco_may_lack_the_list_around_it(tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    (polygon,) = document["annotations"][0]["segmentation"]
    before = decode_mask(read(source).contents.photos[0].instances[0].mask, SIZE)
    document["annotations"][0]["segmentation"] = polygon
    source.write_text(json.dumps(document))
    after = decode_mask(read(source).contents.photos[0].instances[0].mask, SIZE)
    assert after[1] == before[1] == () and (after[0] == before[0]).all()
    mask = disc(12, 30, 20)
    photo = read(source).contents.photos[0]
    new = new_masks(read(source), {(photo.key, photo.instances[0].key): mask})
    read(source).write(tmp_path / "out.json", new)
    written = read(tmp_path / "out.json").contents.photos[0].instances[0].mask
    assert isinstance(written["polygons"][0], list) and (decode_mask(written, SIZE)[0] == mask).all()
