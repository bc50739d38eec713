"""The tools for agents, asked by the library's own client: what they give, and that nothing outside is touched."""

import base64
import io
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.serving import MASK, OTHER, PHOTO, encoded, header_only, refiner

anyio = pytest.importorskip("anyio")
mcp = pytest.importorskip("mcp")
for package in ("fastapi", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)
server = pytest.importorskip("segrefiner.serving.agents.server")

from segrefiner.serving.agents import tools  # noqa: E402
from segrefiner.serving.agents.folders import AllowedFolders  # noqa: E402
from segrefiner.serving.limits import Limits  # noqa: E402

LIMITS = Limits(upload_bytes=300_000, pixels=10_000)


class Opened:
    """In place of a model from a file."""

    def __init__(self) -> None:
        self.refiner = refiner()
        self.identity = {"weights": "tiny"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that agents may use; beside it lies what they may not."""
    for place in ("home/photos", "home/masks", "outside"):
        (tmp_path / place).mkdir(parents=True)
    for place in ("home/photos/a.png", "home/photos/b.png", "outside/a.png"):
        (tmp_path / place).write_bytes(encoded(PHOTO))
    for place, mask in (("home/masks/a.png", MASK), ("home/masks/b.png", OTHER), ("outside/mask.png", MASK)):
        (tmp_path / place).write_bytes(encoded(mask))
    labels = np.where(MASK, 3, 7).astype(np.uint8)
    (tmp_path / "home/labels.png").write_bytes(encoded(labels))
    return tmp_path / "home"


def talk(home: Path, conversation: Callable[[Any], Awaitable[None]], *more: Path) -> None:
    """Lets a conversation ask a server by one client: `await ask(tool, **arguments)`."""
    box = tools.Toolbox({"tiny": Opened()}, AllowedFolders([home, *more]), LIMITS, workers=0)

    async def whole() -> None:
        async with mcp.Client(server.create_server(box), read_timeout_seconds=60) as client:
            await conversation(lambda name, **arguments: client.call_tool(name, arguments))

    anyio.run(whole)


def calls(home: Path, asked: list[tuple[str, dict[str, Any]]], *more: Path) -> list[Any]:
    """What a client gets for its calls, one after the other."""
    found = []

    async def conversation(ask: Any) -> None:
        found.extend([await ask(name, **arguments) for name, arguments in asked])

    talk(home, conversation, *more)
    return found


def call(home: Path, name: str, *more: Path, **arguments: Any) -> Any:
    """What a client gets for a call."""
    return calls(home, [(name, arguments)], *more)[0]


def refused(answer: Any) -> str:
    """The one line of a tool that says no."""
    assert answer.is_error and len(answer.content) == 1
    text: str = answer.content[0].text
    assert text and "\n" not in text and "Traceback" not in text
    return text


def pictures(answer: Any) -> list[Image.Image]:
    found = [one for one in answer.content if one.type == "image"]
    return [Image.open(io.BytesIO(base64.b64decode(one.data))) for one in found]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_mask_is_refined_as_the_refiner_does_and_shown(home: Path) -> None:
    expected = refiner()(PHOTO, MASK, seed=3)
    answer = call(home, "refine_mask", image="photos/a.png", mask=str(home / "masks/a.png"), output="out.png", seed=3)
    assert not answer.is_error, answer.content
    np.testing.assert_array_equal(np.asarray(Image.open(home / "out.png")) > 0, expected.mask)
    assert answer.structured_content["report"]["changed"] == expected.report.changed
    assert answer.structured_content["output"] == str(home / "out.png")
    (shown,) = pictures(answer)
    assert shown.format == "JPEG" and min(shown.size) > 100


def test_without_an_output_the_mask_itself_comes_back_and_nothing_is_written(home: Path) -> None:
    before = everything(home)
    answer = call(home, "refine_mask", image="photos/a.png", mask="masks/a.png", soft=True)
    shown, mask = pictures(answer)
    assert (shown.format, mask.format, mask.size) == ("JPEG", "PNG", PHOTO.shape[1::-1])
    assert everything(home) == before


def test_a_label_map_keeps_its_labels(home: Path) -> None:
    answer = call(home, "refine_label_map", image="photos/a.png", labels="labels.png", output="new.png", ignore=[])
    assert not answer.is_error, answer.content
    assert set(np.unique(np.asarray(Image.open(home / "new.png")))) <= {3, 7}
    assert set(answer.structured_content["report"]["reports"]) <= {"3", "7"} and len(pictures(answer)) == 1


def test_a_folder_is_refined_only_as_a_dry_run_has_shown_it(home: Path) -> None:
    asked = {"images": "photos", "masks": "masks", "output": "out"}
    before = everything(home)

    async def conversation(ask: Any) -> None:
        preview = await ask("refine_folder", **asked)
        told = preview.structured_content
        assert told["would_write"] == ["a.png", "b.png"] and told["would_replace_count"] == 0
        assert told["plan"] in preview.content[0].text and everything(home) == before

        plan = told["plan"]
        changes: list[dict[str, Any]] = [{"seed": 1}, {"output": "elsewhere"}, {"plan": "0" * 16}]
        for changed in changes:
            assert "plan" in refused(await ask("refine_folder", **{**asked, "plan": plan, **changed}))
        assert everything(home) == before

        done = await ask("refine_folder", **asked, plan=plan)
        assert done.structured_content["summary"]["done"] == 2, done.content
        assert sorted(path.name for path in (home / "out").glob("*.png")) == ["a.png", "b.png"]
        again = await ask("refine_folder", **asked, plan=plan)
        assert again.structured_content["summary"]["skipped"] == 2

        (home / "masks/a.png").write_bytes(encoded(OTHER))
        assert "plan" in refused(await ask("refine_folder", **asked, plan=plan))

    talk(home, conversation)


def test_a_dry_run_says_what_would_be_replaced(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out/b.png").write_bytes(b"mine")
    told = call(home, "refine_folder", images="photos", masks="masks", output="out").structured_content
    assert told["would_replace"] == ["b.png"]


def test_items_beyond_the_limits_fail_alone(home: Path) -> None:
    (home / "photos/b.png").write_bytes(header_only(400, 400))
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    (home / "photos/c.png").write_bytes(encoded(noise))
    (home / "masks/c.png").write_bytes(encoded(MASK))
    asked = {"images": "photos", "masks": "masks", "output": "out"}

    async def conversation(ask: Any) -> None:
        plan = (await ask("refine_folder", **asked)).structured_content["plan"]
        summary = (await ask("refine_folder", **asked, plan=plan)).structured_content["summary"]
        assert summary["done"] == 1 and summary["failed"] == 2
        told = {one["name"]: one["reason"] for one in summary["failures"]}
        assert "400x400" in told["b.png"] and "0.3 MB" in told["c.png"]

    talk(home, conversation)


def test_a_report_is_told_in_plain_words(home: Path) -> None:
    async def conversation(ask: Any) -> None:
        answer = await ask("refine_mask", image="photos/a.png", mask="masks/a.png")
        report = answer.structured_content["report"]
        report |= {"unsure": 0.25, "too_far": 0.125, "kept_objects": {"too small": 2}, "warnings": ["a turn by EXIF"]}
        told = (await ask("explain_report", report=report)).content[0].text
        for words in ("25.00 %", "12.50 %", "max_shift", "2 objects", "too small", "a turn by EXIF"):
            assert words in told
        (home / "report.json").write_text(json.dumps({"report": report}))
        assert (await ask("explain_report", file="report.json")).content[0].text == told
        wrong: list[dict[str, Any]] = [{}, {"report": {}}, {"report": {"agreement": "x"}}, {"file": "photos/a.png"}]
        for given in wrong:
            refused(await ask("explain_report", **given))

    talk(home, conversation)


def test_a_job_s_summary_is_told_too(home: Path) -> None:
    summary = {"total": 5, "done": 2, "skipped": 1, "stopped": "stopped", "not_tried": 2,
               "left_out_reasons": {"empty": 3}, "failures": [{"name": "a.png", "reason": "is damaged"}]}  # fmt: skip
    told = call(home, "explain_report", report=summary).content[0].text
    for words in ("2 of 5", "3 left out: empty", "a.png failed: is damaged", "2 are still to be done"):
        assert words in told


OUTSIDE: dict[str, Callable[[Path], str]] = {
    "absolute": lambda home: str(home.parent / "outside/a.png"),
    "dots": lambda home: "../outside/a.png",
    "dots after a folder that is there": lambda home: "photos/../../outside/a.png",
    "dots below the root": lambda home: f"{home}/../outside/a.png",
    "a name that only begins as the folder's": lambda home: str(home) + "-more/a.png",
    "link to a file": lambda home: "link.png",
    "link to a folder": lambda home: "linked/a.png",
    "link to a link": lambda home: "chain.png",
    "the process's root": lambda home: f"/proc/self/root{home.parent}/outside/a.png",
    "drive": lambda home: "C:\\outside\\a.png",
    "drive without root": lambda home: "C:a.png",
    "share": lambda home: "\\\\server\\share\\a.png",
    "nul": lambda home: "photos/a.png\0.txt",
    "empty": lambda home: "",
    "device": lambda home: "/dev/zero",
    "nothing": lambda home: "/no/such/file.png",
}


@pytest.fixture
def linked(home: Path) -> Path:
    outside = home.parent / "outside"
    (home.parent / "home-more").mkdir()
    (home.parent / "home-more/a.png").write_bytes(encoded(PHOTO))
    for name, target in (("link.png", outside / "a.png"), ("linked", outside), ("chain.png", home / "link.png")):
        os.symlink(target, home / name)
    return home


def test_nothing_outside_is_read_written_or_told_of(linked: Path) -> None:
    before = everything(linked.parent)
    good = {"image": "photos/a.png", "mask": "masks/a.png"}
    folders = {"images": "photos", "masks": "masks", "output": "out"}
    labels = {"image": "photos/a.png", "labels": "labels.png", "output": "new.png", "replace": True}
    places = (
        *(("refine_mask", {**good, "replace": True}, place) for place in ("image", "mask", "output")),
        *(("refine_label_map", labels, place) for place in ("image", "labels", "output")),
        *(("refine_folder", folders, place) for place in folders),
        ("explain_report", {}, "file"),
    )
    tried = [(tool, {**given, place: way(linked)}) for way in OUTSIDE.values() for tool, given, place in places]
    for (tool, arguments), answer in zip(tried, calls(linked, tried), strict=True):
        line = refused(answer)
        assert "outside of what this tool may use" in line and str(linked) in line, (tool, arguments)
    assert everything(linked.parent) == before


@pytest.mark.parametrize("place", ["photos/deep/more.png", "masks/deep", "out/a.png", "out/.segrefiner"])
def test_a_folder_with_a_link_to_elsewhere_is_no_job(place: str, home: Path) -> None:
    target = home / place
    target.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(home.parent / "outside" / ("a.png" if target.suffix == ".png" else ""), target)
    line = refused(call(home, "refine_folder", images="photos", masks="masks", output="out"))
    assert "is a link that leads out" in line


def test_links_that_stay_inside_are_followed(home: Path) -> None:
    os.symlink(home / "photos", home / "same")
    assert not call(home, "refine_mask", image="same/a.png", mask="masks/a.png").is_error


def test_several_folders_want_whole_paths(home: Path) -> None:
    other = home.parent / "outside"
    relative = {"image": "photos/a.png", "mask": "masks/a.png"}
    whole = {"image": str(other / "a.png"), "mask": str(home / "masks/a.png")}
    first, second = calls(home, [("refine_mask", relative), ("refine_mask", whole)], other)
    assert "is relative" in refused(first) and not second.is_error


def test_files_that_are_there_are_replaced_on_request_alone_and_inputs_never(home: Path) -> None:
    asked = {"image": "photos/a.png", "mask": "masks/a.png"}
    (home / "out.png").write_bytes(b"mine")

    async def conversation(ask: Any) -> None:
        assert "is there already" in refused(await ask("refine_mask", **asked, output="out.png"))
        assert (home / "out.png").read_bytes() == b"mine"
        for name in asked.values():
            assert "would be overwritten" in refused(await ask("refine_mask", **asked, output=name, replace=True))
        assert not (await ask("refine_mask", **asked, output="out.png", replace=True)).is_error

    talk(home, conversation)


def test_errors_are_one_line_that_says_what_to_do(home: Path) -> None:
    (home / "text.png").write_bytes(b"hello")
    (home / "large.png").write_bytes(bytes(300_001))
    (home / "wide.png").write_bytes(header_only(400, 400))
    (home / "small.png").write_bytes(encoded(np.zeros((2, 3), bool)))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"steps": 7}, "steps"),
        ({"strength": "nan"}, "strength"),
        ({"colour": "red"}, "colour"),
        ({"model": "other"}, "expected one of tiny"),
        ({"mask": None}, "mask"),
        ({"image": "photos"}, "folder"),
        ({"image": "absent.png"}, "cannot be read"),
        ({"output": "new.jpg"}, ".png"),
        ({"output": "new/new.png"}, "does not exist"),
        ({"image": "text.png"}, "no type that is read"),
        ({"image": "large.png"}, "0.3 MB"),
        ({"image": "wide.png"}, "400x400"),
        ({"mask": "small.png"}, "3x2"),
    ]
    asked = {"image": "photos/a.png", "mask": "masks/a.png"}
    answers = calls(home, [*(("refine_mask", {**asked, **given}) for given, _ in wrong), ("delete_everything", {})])
    for answer, words in zip(answers, [*(words for _, words in wrong), "expected one of refine_mask"], strict=True):
        assert words in refused(answer)


def test_what_is_nobody_s_mistake_is_told_without_details(home: Path, monkeypatch: Any, caplog: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret /etc/passwd")

    monkeypatch.setattr(tools, "mask_task", fail)
    assert "secret" not in refused(call(home, "refine_mask", image="photos/a.png", mask="masks/a.png"))
    assert "secret" in caplog.text


def test_every_tool_is_described_and_says_whether_it_writes(home: Path) -> None:
    box = tools.Toolbox({"tiny": Opened()}, AllowedFolders([home]), LIMITS)

    async def listed() -> Any:
        async with mcp.Client(server.create_server(box)) as client:
            return (await client.list_tools()).tools

    found = {tool.name: tool for tool in anyio.run(listed)}
    assert set(found) == {"refine_mask", "refine_label_map", "refine_folder", "explain_report"}
    for name, tool in found.items():
        assert tool.description and tool.annotations.read_only_hint == (name == "explain_report")
        assert all(one.get("description") for one in tool.input_schema["properties"].values()), name
