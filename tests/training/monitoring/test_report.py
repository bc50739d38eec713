"""The page of a training run: complete, self-contained, and never more than what the folder holds."""

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.pages import Page
from segrefiner.cli.train import training_report
from segrefiner.errors import InputError, OutputError
from segrefiner.rendering.svg import Curve, curves
from segrefiner.training.monitoring.report import headline, smoothed, thinned, training_page, write_training_report
from segrefiner.training.run_folder import read_run

QUICK = settings(max_examples=100)
EVIL = '"><script>alert(1)</script>'


def lines(path: Path, rows: list[dict[str, Any]], end: str = "") -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


def log_row(step: int, **others: Any) -> dict[str, Any]:
    row = {"step": float(step), "loss": 100 / step, "bce": 80 / step, "texture": 4 / step, "gradient_norm": 1.0,
           "lr": 1e-3, "samples": 16.0 * step, "samples_per_second": 20.0, "minutes": step / 75}  # fmt: skip
    return row | {f"loss_t{index}": (1 + index) / step for index in range(6)} | others


def validation_row(step: int, pipeline: str, after: float) -> dict[str, Any]:
    return {"step": step, "pipeline": pipeline, "photos": 9, "iou_before": 0.5, "iou_after": after, "mba_before": 0.25,
            "mba_after": after / 2, "harmed": 0.125}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    (folder / "pictures").mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"samples": 32_000, "model": {"widths": [1, 2]}, "lr": 1e-3}))
    lines(folder / "log.jsonl", [log_row(step) for step in range(50, 1050, 50)])
    rows = [validation_row(step, name, 0.6 + step / 1e4) for step in (500, 1000) for name in ("default", "published")]
    lines(folder / "validation.jsonl", rows)
    lines(folder / "failures.jsonl", [{"name": "a.jpg", "reason": "it is cut off"}])
    for step in (9, 50, 500, 1000):
        Image.fromarray(np.full((30, 80, 3), step % 256, np.uint8)).save(folder / "pictures" / f"{step}.png")
    return folder


def test_the_page_is_complete_and_self_contained(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(training_report, [str(run), "-o", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.count("svg") == 8 and page.count("script") == page.count("link") == 0
    assert not re.search(r"(src|href)=[\"'](?!data:)|url\(|@import|https?://", text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in images)
    # The last three, the newest first, in the order of numbers and not of names.
    assert [(image["alt"] or "").split(":")[0] for image in images] == ["Step 1,000", "Step 500", "Step 50"]
    gain = "IoU 0.5000 → 0.7000 with the pipeline default at step 1,000"
    for words in ("Training: my run", gain, "16,000 of 32,000 samples", "model.widths", "[1, 2]",
                  "a.jpg: it is cut off", "12.5 %", "13.3 min", "To go"):  # fmt: skip
        assert words in page.text
    assert "width=device-width" in text and "prefers-color-scheme: dark" in text
    titles = [svg.findtext("title") or "" for svg in map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", text))]
    assert titles[0] == "Loss by step. 2 at step 50, 0.1 at step 1000"
    assert all("at step 1000" in title for title in titles)


def test_without_an_output_it_lies_in_the_run(run: Path) -> None:
    assert CliRunner().invoke(training_report, [str(run)]).exit_code == 0
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_a_run_that_has_just_begun(run: Path, rows: int) -> None:
    for name in ("validation.jsonl", "failures.jsonl"):
        (run / name).unlink()
    lines(
        run / "log.jsonl", [{"step": 50.0 * (1 + index), "loss": 1.0} for index in range(rows)], '{"step": 150.0, "lo'
    )
    page = Page(training_page(read_run(run)))
    assert page.count("svg") == bool(rows)
    assert "log.jsonl: 1 line is not readable" in page.text
    assert ("Nothing was logged yet" in page.text) == (not rows)


def test_each_part_of_the_folder_may_be_missing_or_broken(run: Path) -> None:
    for name in ("validation.jsonl", "failures.jsonl", "log.jsonl", "recipe.json"):
        (run / name).write_bytes(b"\xff\x00 no JSON [[[[")
        page = Page(training_page(read_run(run)))
        assert name in page.text
        (run / name).write_text("[1, 2]\n")
        training_page(read_run(run))
    (run / "pictures" / "1000.png").write_bytes(b"no picture")
    assert "1000.png" in Page(training_page(read_run(run))).text
    (run / "recipe.json").unlink()
    assert "Recipe" not in Page(training_page(read_run(run))).text
    (run / "log.jsonl").unlink()
    with pytest.raises(InputError, match="neither"):
        read_run(run)
    with pytest.raises(InputError, match="is no folder"):
        read_run(run / "none")
    with pytest.raises(OutputError, match=r"\.html"):
        write_training_report(run, run / "report.txt")


VALUES = st.sampled_from([None, True, "9", [1], {}, math.nan, math.inf, -1.0, 0, 0.0, 1e-12, 1e280, 10**400, 3.5, EVIL])
NAMES = st.sampled_from(["step", "loss", "bce", "lr", "loss_t0", "gradient_norm", "samples", "minutes",
                         "samples_per_second", "pipeline", "photos", "iou_before", "iou_after", "harmed"])  # fmt: skip


@QUICK
@given(rows=st.lists(st.dictionaries(NAMES, VALUES), max_size=6), recipe=st.dictionaries(NAMES, VALUES))
def test_no_value_breaks_the_page(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], recipe: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.json").write_text(json.dumps(recipe))
    for name in ("log.jsonl", "validation.jsonl", "failures.jsonl"):
        lines(folder / name, rows)
    text = training_page(read_run(folder))
    assert Page(text).count("script") == 0
    for svg in re.findall(r"<svg.*?</svg>", text):
        places = [float(place) for points in re.findall(r'points="([^"]+)"', svg) for place in re.split("[ ,]", points)]
        assert all(0 <= place <= 480 for place in places)


def test_names_cannot_write_into_the_page(run: Path) -> None:
    (run / "recipe.json").write_text(json.dumps({EVIL: EVIL, "part": {EVIL: [EVIL]}}))
    lines(run / "validation.jsonl", [validation_row(50, EVIL, 0.7)])
    lines(run / "failures.jsonl", [{"name": EVIL, "reason": EVIL}] * 150)
    run = run.rename(run.with_name("<script>"))
    page = Page(training_page(read_run(run)))
    assert page.count("script") == 0
    assert page.text.count(EVIL) > 100 and "and 50 more" in page.text


def test_steps_that_a_killed_run_took_twice_are_shown_once(run: Path) -> None:
    lines(run / "log.jsonl", [log_row(step, loss=9.0) for step in (50, 100, 150)] + [log_row(100), log_row(150)])
    log = read_run(run).log
    assert [(row["step"], row["loss"]) for row in log] == [(50, 9.0), (100, 1.0), (150, 100 / 150)]


def test_sessions_of_a_continued_run_are_added_up(run: Path) -> None:
    minutes = [10, 20, 5, 15, 25, 1]
    lines(run / "log.jsonl", [log_row(50 * (1 + index), minutes=value) for index, value in enumerate(minutes)])
    assert "46 min in 3 sessions" in Page(training_page(read_run(run))).text


def test_the_headline_of_a_run_without_validation(run: Path) -> None:
    (run / "validation.jsonl").unlink()
    assert headline(read_run(run)) == "Step 1,000, 16,000 of 32,000 samples, loss 0.1000."


POINTS = st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e3, 1e3)), min_size=1, max_size=300).map(sorted)


@QUICK
@given(points=POINTS)
def test_smoothing_keeps_the_range_and_the_steps(points: list[tuple[float, float]]) -> None:
    result = smoothed(points)
    assert [across for across, _ in result] == [across for across, _ in points]
    values = [value for _, value in points]
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for _, value in result)


def test_few_points_stay_as_they_are() -> None:
    points = [(float(step), float(step**2)) for step in range(9)]
    assert smoothed(points) == points


def test_one_huge_value_does_not_spoil_what_follows() -> None:
    points = [(float(step), 1e20 if step == 3 else 1.0) for step in range(30)]
    assert [value for _, value in smoothed(points)][6:] == [1.0] * 24


@QUICK
@given(points=POINTS, most=st.integers(2, 100))
def test_thinning_keeps_every_spike(points: list[tuple[float, float]], most: int) -> None:
    kept = thinned(points, most)
    assert len(kept) <= most and set(kept) <= set(points) and kept == sorted(kept)
    for pick in (min, max):
        assert pick(value for _, value in kept) == pick(value for _, value in points)


@QUICK
@given(
    points=st.lists(st.tuples(st.integers(0, 10**6), st.floats(1e-9, 1e6)), min_size=1, max_size=30), log=st.booleans()
)
def test_curves_stay_inside_the_plot_and_rise_with_their_values(points: list[tuple[float, float]], log: bool) -> None:
    root = ElementTree.fromstring(curves([Curve(sorted(points), "a & <b>")], "title", ("x", "y"), log=log))
    found = root.find("polyline")
    if found is None:
        (dot,) = root.findall("circle")
        places = [(float(dot.attrib["cx"]), float(dot.attrib["cy"]))]
    else:
        pairs = (pair.split(",") for pair in found.attrib["points"].split())
        places = [(float(across), float(down)) for across, down in pairs]
    assert len(places) == len(points)
    assert all(0 < across <= 480 and 0 < down < 300 for across, down in places)
    for (_, value), (_, down) in zip(sorted(points), places, strict=True):
        assert all(
            down <= other_down
            for (_, other), (_, other_down) in zip(sorted(points), places, strict=True)
            if other < value
        )


@pytest.mark.parametrize("values", [(1e-5, 1e-3), (0.21, 1.4), (0.01, 900.0), (1e-9, 1e9), (0.3, 0.31), (6e-4, 6e-4)])
def test_axes_of_any_magnitude_have_ticks_that_can_be_told_apart(values: tuple[float, float]) -> None:
    root = ElementTree.fromstring(curves([Curve([(0, values[0]), (9, values[1])])], "", ("x", "y"), log=True))
    ticks = [text.text for text in root.findall("text") if text.attrib["text-anchor"] == "end"]
    assert 2 <= len(ticks) == len(set(ticks)) <= 9


def test_legends_break_into_rows_within_the_plot() -> None:
    lines = [Curve([(0, 1), (1, 2)], f"a long name {index}") for index in range(6)]
    root = ElementTree.fromstring(curves(lines, "", ("x", "y")))
    names = [text for text in root.findall("text") if text.attrib["text-anchor"] == "start"]
    assert len(names) == 6 and len({text.attrib["y"] for text in names}) == 3
    lowest = max(float(text.attrib["y"]) for text in names)
    tops = [float(pair.split(",")[1]) for line in root.findall("polyline") for pair in line.attrib["points"].split()]
    assert min(tops) > lowest
