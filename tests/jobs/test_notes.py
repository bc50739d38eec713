"""What had to be guessed of a pair is said by whatever takes one, in one line, and only where it was."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from helpers.serving import encoded
from helpers.serving import refiner as tiny_refiner
from helpers.storage import RGB, png
from helpers.tiny import TINY
from segrefiner import InputWarning, Refiner
from segrefiner.cli.main import main
from segrefiner.imaging.clips import clip, read_clip
from segrefiner.imaging.coco_masks import encode_rle
from segrefiner.imaging.label_files import write_ids
from segrefiner.imaging.reading import read_photo
from segrefiner.jobs.coco import coco_job
from segrefiner.jobs.folders import folder_job, semantic_job
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.panoptic import panoptic_job
from segrefiner.jobs.run import run
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.large_photos import refine_large
from segrefiner.refinement.video import refine_video
from segrefiner.serving.client import Client

SIZE = (60, 60)
PHOTO = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
MASK = np.zeros(SIZE, bool)
MASK[5:25, 8:20] = True


def _tagged() -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3
    Image.fromarray(PHOTO).save(stream, "PNG", exif=exif)
    return stream.getvalue()


PHOTOS = {"turned": (_tagged(), "EXIF"), "10 bits": (png(PHOTO.astype(np.uint16) * 1023 // 255, 16, RGB), "10 bits")}


@pytest.fixture(params=PHOTOS)
def told(request: pytest.FixtureRequest) -> str:
    """What the note has in it."""
    return str(PHOTOS[request.param][1])


@pytest.fixture
def place(tmp_path: Path, told: str) -> Path:
    """Folders of the photo and of its mask as mask, ids and labels, and weights."""
    (content,) = (content for content, said in PHOTOS.values() if said == told)
    for folder in ("images", "masks", "maps"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.png").write_bytes(content)
    Image.fromarray(MASK).save(tmp_path / "masks" / "a.png")
    write_ids(tmp_path / "maps" / "a.png", np.where(MASK, 5, 9).astype(np.int32))
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    return tmp_path


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), name="tiny", steps=1)


def holds(notes: Any, told: str) -> bool:
    (note,) = notes
    return told in note and "\n" not in note


@pytest.mark.parametrize(
    "ask",
    [
        lambda refiner, photo, mask: [refiner(photo, mask)],
        lambda refiner, photo, mask: list(refiner.many([(photo, mask)])),
        lambda refiner, photo, mask: list(refiner.instances(photo, [mask])),
        lambda refiner, photo, mask: list(refiner.instances(photo, [mask], [(8, 5, 20, 25)])),
        lambda refiner, photo, mask: [refine_labels(refiner, photo, MASK.astype(np.uint8))],
        lambda refiner, photo, mask: [one for _, one in refine_video(refiner, [("a", photo, MASK)])],
    ],
    ids=["call", "many", "instances", "boxes", "labels", "video"],
)
def test_calls_warn_and_report(place: Path, told: str, refiner: Refiner, ask: Callable[..., list[Any]]) -> None:
    photo, mask = place / "images" / "a.png", place / "masks" / "a.png"
    with pytest.warns(InputWarning, match=told):
        (result,) = ask(refiner, photo, mask)
    assert holds(result.report.warnings if hasattr(result, "report") else result.warnings, told)
    # Who has read the photo has its notes, and is not warned.
    (result,) = ask(refiner, read_photo(photo), mask)
    assert holds(result.report.warnings if hasattr(result, "report") else result.warnings, told)


def test_one_of_several_masks_is_spoken_of_alone(refiner: Refiner) -> None:
    y, x = np.ogrid[:60, :60]
    same = (y - 29.5) ** 2 + (x - 29.5) ** 2 < 400
    results = list(refiner.many((read_photo(PHOTOS["turned"][0]), mask) for mask in (same, MASK)))
    assert [len(result.report.warnings) for result in results] == [0, 1]
    assert "note: " in str(results[1].report) and "note: " not in str(results[0].report)


def test_clips_say_it(place: Path, told: str, refiner: Refiner) -> None:
    with pytest.warns(InputWarning, match=told):
        list(clip(place / "images", place / "masks"))
    ((_, result),) = refine_video(refiner, read_clip(place / "images", place / "masks"))
    assert holds(result.report.warnings, told)


def test_large_photos_say_it(place: Path, told: str, refiner: Refiner) -> None:
    pytest.importorskip("pyvips")
    with pytest.warns(InputWarning, match=told):
        (report,) = refine_large(refiner, place / "images" / "a.png", place / "masks" / "a.png", place / "out.png")
    assert holds(report.warnings, told)


def _coco(place: Path) -> Job:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 60}],
        "annotations": [{"id": 1, "image_id": 1, "segmentation": encode_rle(MASK)}],
    }
    (place / "coco.json").write_text(json.dumps(document))
    return coco_job(place / "coco.json", place / "images", place / "out.json")


def _panoptic(place: Path) -> Job:
    segments = [{"id": value, "category_id": 1} for value in (5, 9)]
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
    }
    (place / "panoptic.json").write_text(json.dumps(document))
    return panoptic_job(place / "panoptic.json", place / "maps", place / "images", place / "out")


@pytest.mark.parametrize(
    "job",
    [
        lambda place: folder_job(place / "images", place / "masks", place / "out"),
        lambda place: folder_job(place / "images", place / "masks", place / "out", write="cutout"),
        lambda place: semantic_job(place / "images", place / "masks", place / "out", ignore=()),
        _coco,
        _panoptic,
    ],
    ids=["folder", "cutouts", "semantic", "coco", "panoptic"],
)
def test_jobs_say_it_in_their_ledger(place: Path, told: str, refiner: Refiner, job: Callable[[Path], Job]) -> None:
    for _ in range(2):  # Also of what is done already.
        ledger = run(job(place), LocalEngine(refiner, workers=0), place / "state", config="")
        assert ledger.failed == ledger.left_out == 0 and ledger.notes == 1
        assert (
            holds(ledger.remarks, told) and "a.png" in ledger.remarks[0] and "bytes in memory" not in ledger.remarks[0]
        )


def test_commands_say_it(place: Path, told: str) -> None:
    pair, weights = (place / "images" / "a.png", place / "masks" / "a.png"), ("--model", place / "tiny.safetensors")
    folders = (place / "images", place / "masks")
    for arguments in (
        ("refine", *pair, "-o", place / "out.png"),
        ("refine", *pair, "-o", place / "out.png", "--windowed"),
        ("folder", *folders, "-o", place / "out"),
        ("video", *folders, "-o", place / "frames"),
    ):
        if "--windowed" in arguments:
            pytest.importorskip("pyvips")
        result = CliRunner().invoke(main, [str(one) for one in (*arguments, *weights)])
        assert result.exit_code == 0, result.output
        assert sum(told in line and "note: " in line for line in result.output.splitlines()) == 1, result.output
        assert "InputWarning" not in result.output


def test_the_server_says_it(told: str) -> None:
    for package in ("segrefiner.serving.api", "httpx2", "prometheus_client"):
        pytest.importorskip(package)
    from fastapi.testclient import TestClient

    from segrefiner.serving.api import create_app

    (content,) = (content for content, said in PHOTOS.values() if said == told)
    mask, labels = encoded(MASK), encoded(MASK.astype(np.uint8))
    json_only = {"Accept": "application/json"}
    with TestClient(create_app({"tiny": tiny_refiner()}), base_url="http://localhost") as api:
        for fields in ({}, {"boxes": "[[8, 5, 20, 25]]"}):
            files = [("image", ("a", content)), ("mask", ("b", mask))]
            (answer,) = api.post("/v1/refine", files=files, data=fields, headers=json_only).json()["masks"]
            assert holds(answer["report"]["warnings"], told)
            header = api.post("/v1/refine", files=files, data=fields).headers["x-segrefiner-report"]
            assert holds(json.loads(header)["warnings"], told)
        rle = json.dumps(encode_rle(MASK))
        answer = api.post("/v1/refine", files=files[:1], data={"rle": rle}, headers=json_only).json()["masks"][0]
        assert holds(answer["report"]["warnings"], told)
        files = [("image", ("a", content)), ("labels", ("b", labels))]
        answer = api.post("/v1/refine/labels", files=files, data={"ignore": "none"}, headers=json_only).json()
        assert holds(answer["warnings"], told)


def test_the_client_says_what_the_server_said(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    answer = {"masks": [{"rle": encode_rle(MASK), "report": {"warnings": [told]}}] * 2}
    client = Client("http://127.0.0.1:1")
    monkeypatch.setattr(client, "_asked", lambda path, body, headers, read: read(answer))
    with pytest.warns(InputWarning, match=told) as caught:
        client.refine(encoded(PHOTO), [MASK, MASK])
    assert len(caught) == 1


def test_specks_that_are_left_are_a_note_of_jobs(tmp_path: Path) -> None:
    mask = (np.indices((200, 200)) % 14 < 2).all(0)
    for kind, picture in (("images", np.zeros((200, 200, 3), np.uint8)), ("masks", mask)):
        (tmp_path / kind).mkdir()
        Image.fromarray(picture).save(tmp_path / kind / "a.png")
    rows = [{"image_id": 1, "segmentation": encode_rle(mask)}]
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows}
    (tmp_path / "masks.json").write_text(json.dumps(document))
    masks = folder_job(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    annotations = coco_job(tmp_path / "masks.json", tmp_path / "images", tmp_path / "new.json")
    for name, job in (("a.png", masks), ("annotation 0", annotations)):
        ledger = run(job, LocalEngine(Refiner(DenoisingUNet(TINY), steps=2), 0), tmp_path / f"{name} books", config="1")
        assert f"{name}: 225 specks among very many are left as they are" in ledger.remarks
