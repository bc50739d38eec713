"""The report: complete, self-contained, careful with what it is given, and drawn to scale."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.pages import Page
from segrefiner.cli.main import main
from segrefiner.evaluation.report import (
    case_pictures,
    chosen_cases,
    headline,
    html_report,
    load_results,
    markdown_report,
    quality_table,
)
from segrefiner.evaluation.results import shown
from segrefiner.rendering.markdown import as_markdown
from segrefiner.rendering.svg import bin_names, histogram, histogram_bins, nice_step, scatter

QUICK = settings(max_examples=100)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
COUNT = 12


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A real evaluation of masks that were moved by less and less."""
    rows, columns = np.mgrid[:40, :60]
    for folder in ("truth", "coarse", "predicted", "images"):
        (tmp_path / folder).mkdir()
    for index in range(COUNT):
        moves = {"truth": 0, "coarse": index // 2 + 1, "predicted": (index + 3) // 3}
        for folder, move in moves.items():
            mask = (rows - 20) ** 2 + (columns - 25 - move) ** 2 < 14**2
            Image.fromarray(mask).save(tmp_path / folder / f"{index:02d}.png")
        Image.fromarray(np.full((40, 60, 3), 10 * index, np.uint8)).save(tmp_path / "images" / f"{index:02d}.jpg")
    path = tmp_path / "results.json"
    done = run("evaluate", "folder", tmp_path / "truth", tmp_path / "predicted", "--coarse", tmp_path / "coarse",
               "--images", tmp_path / "images", "--json", path)  # fmt: skip
    assert done.exit_code == 0, done.output
    return path


def test_the_page_is_complete_and_self_contained(results: Path) -> None:
    output, markdown = results.with_name("report.html"), results.with_name("report.md")
    done = run("report", results, "-o", output, "--markdown", markdown, "--cases", 2, "--title", "Mine & <yours>")
    assert done.exit_code == 0, done.output
    text = output.read_text()
    page = Page(text)
    assert page.count("svg") == 2 and page.count("script") == page.count("link") == 0
    titles = re.findall(r"<figcaption><b>([^<]+)</b></figcaption><svg", text)
    assert titles == ["Distribution of the gain", "Gain by the coarse mask's quality".replace("'", "&#x27;")]
    # Two pictures for each of two worst, median and best cases: the change, and the errors.
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 12 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert not re.search(r"(src|href)=[\"'](?!data:)|url\(|@import|https?://", text)
    for word in ("Mine & <yours>", "Worst by gain", "Median by gain", "Best by gain", "Harmed", "boundary IoU"):
        assert word in page.text
    assert "width=device-width" in text and "prefers-color-scheme: dark" in text
    plain = markdown.read_text()
    assert plain.startswith("# Mine & <yours>\n") and "| gain " in plain and "## Worst by gain" in plain
    assert plain.count("#") > 6 and "```" in plain


def test_plots_are_drawn_to_scale(results: Path) -> None:
    data = load_results(results)
    page = html_report(data)
    first, second = re.findall(r"<svg.*?</svg>", page, re.S)
    bars = ElementTree.fromstring(first).findall(".//rect")
    counts = [int((bar.findtext("title") or "").rsplit(": ")[1]) for bar in bars]
    assert sum(counts) == COUNT
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights == pytest.approx([max(heights) * count / max(counts) for count in counts], abs=0.06)
    assert all((bar.attrib["fill"] == "var(--bad)") == (float(bar.attrib["x"]) < zero(first)) for bar in bars)
    dots = ElementTree.fromstring(second).findall(".//circle")
    assert len(dots) == COUNT
    across = [float(dot.attrib["cx"]) for dot in dots]
    quality = [row["before"]["iou"] for row in data["rows"]]
    assert np.argsort(across, kind="stable").tolist() == np.argsort(quality, kind="stable").tolist()


def zero(svg: str) -> float:
    """Where the axis of a histogram has its 0."""
    ticks = [one for one in ElementTree.fromstring(svg).findall("text") if one.text == "0"]
    return float(ticks[0].attrib["x"])


def test_cases_are_the_worst_the_median_and_the_best(results: Path) -> None:
    data = load_results(results)
    gains = {row["name"]: row["after"]["iou"] - row["before"]["iou"] for row in data["rows"]}
    ordered = sorted(gains.values())
    chosen = {kind: [gains[row["name"]] for row in rows] for kind, rows in chosen_cases(data, 2).items()}
    assert chosen["Worst by gain"] == ordered[:2]
    assert chosen["Median by gain"] == ordered[5:7]
    assert chosen["Best by gain"] == ordered[:-3:-1]
    names = [row["name"] for rows in chosen_cases(data, 50).values() for row in rows]
    assert len(names) == len(set(names)) == COUNT
    assert chosen_cases(data, 0) == {}


def test_quality_is_cut_into_equal_parts(results: Path) -> None:
    data = load_results(results)
    header, lines = quality_table(data) or ([], [])
    assert [int(line[1]) for line in lines] == [3, 3, 2, 2, 2]
    rows = sorted(data["rows"], key=lambda row: row["before"]["iou"])
    gain = np.mean([row["after"]["iou"] - row["before"]["iou"] for row in rows[:3]])
    assert lines[0][2] == f"{100 * gain:+.2f}" and header[0] == "IoU coarse"
    data["rows"] = data["rows"][:4]
    assert quality_table(data) is None


def test_pictures_show_what_is_wrong(results: Path) -> None:
    data = load_results(results)
    overlay, errors = case_pictures(data, data["rows"][-1])
    assert overlay.caption == "Before and after" and "missed in blue, false in red" in errors.caption
    blue, red = ((errors.pixels.astype(int) - errors.pixels[..., [channel]]).max(axis=2) for channel in (0, 2))
    left, right = np.array_split(np.arange(errors.pixels.shape[1]), 2)
    # The coarse mask, at the left, was moved further than the prediction.
    assert (blue[:, left] > 100).sum() > (blue[:, right] > 100).sum() > 0
    assert (red[:, left] > 100).sum() > (red[:, right] > 100).sum() > 0


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lambda folder: (folder / "images" / "00.jpg").unlink(), "the photo could not be read; light is the truth"),
        (lambda folder: (folder / "predicted" / "00.png").unlink(), "No picture: mask "),
        (lambda folder: (folder / "truth" / "00.png").write_bytes(b"x"), "No picture: mask "),
        (lambda folder: Image.new("1", (9, 9)).save(folder / "coarse" / "00.png"), "No picture: mask "),
        (lambda folder: Image.new("RGB", (9, 9)).save(folder / "images" / "00.jpg"), "the photo could not be read"),
    ],
    ids=["photo", "prediction", "truth", "size", "photo's size"],
)
def test_missing_pictures_are_told_on_the_page(results: Path, lose: Callable[[Path], object], said: str) -> None:
    lose(results.parent)
    text = html_report(load_results(results), cases=50)
    assert said in Page(text).text
    assert text.count("<img") in (2 * COUNT, 2 * COUNT - 2)


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


def without_coarse(data: dict[str, Any]) -> None:
    for part in (*data["summary"], *data["rows"]):
        part["before"] = None
    for part in data["summary"]:
        part["gain"] = part["harmed"] = None
    for row in data["rows"]:
        row["paths"]["coarse"] = None


def test_without_coarse_masks_the_figure_itself_is_shown(results: Path) -> None:
    data = load_results(edited(results, without_coarse))
    text = html_report(data, cases=1)
    assert text.count("<svg") == 1 and "Worst by IoU" in text and "armed" not in text
    assert text.count("<img") == 3 and "Errors of the predicted mask" in text
    assert "Gain" not in markdown_report(data)
    assert re.fullmatch(r"Mean IoU \d+\.\d\d, 12 images\.", headline(data))


def test_rows_without_files_and_without_figures(results: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["rows"] = data["rows"][:2]
        data["rows"][0]["paths"] = {}
        data["rows"][1]["after"]["iou"] = None
        data["failures"] = [{"name": f"<{index}>", "message": "a & b"} for index in range(150)]

    data = load_results(edited(results, edit))
    page = Page(html_report(data))
    assert page.count("img") == 0 and "Not measured: 150" in page.text and "<99>: a & b" in page.text
    assert "and 50 more" in page.text and "Cases" in page.text
    assert "## Not measured: 150" in markdown_report(data)


def test_objects_of_label_maps_are_shown_alone(tmp_path: Path) -> None:
    for step, folder in [(step, folder) for step in range(4) for folder in ("Annotations/480p", "coarse", "found")]:
        labels = np.zeros((30, 50), np.uint8)
        labels[5:15, 5:20] = 1
        labels[10:25, 25 : 45 - 5 * step * (folder == "coarse")] = 2
        (tmp_path / folder / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(tmp_path / folder / "cat" / f"{step:05d}.png")
    path = tmp_path / "results.json"
    done = run("evaluate", "davis", tmp_path, tmp_path / "found", "--coarse", tmp_path / "coarse", "--json", path)
    assert done.exit_code == 0, done.output
    data = load_results(path)
    row = next(row for row in data["rows"] if row["name"] == "cat/2")
    # Of the frames that count, the last one was repaired most: 15 x 10 pixels.
    assert row["paths"]["truth"].endswith("00002.png")
    _, errors = case_pictures(data, row)
    blue = errors.pixels.astype(int)[..., 2] - errors.pixels.astype(int)[..., 0] > 100
    assert blue.sum() == 15 * 10
    assert "cat/2" in Page(html_report(data)).text


def test_many_points_have_a_trend(results: Path) -> None:
    data = load_results(results)
    assert "<polyline" not in html_report(data, cases=0)
    data["rows"] = data["rows"] * 2
    assert "<polyline" in html_report(data, cases=0)


def test_names_cannot_write_into_the_page(results: Path) -> None:
    evil = '"><script>alert(1)</script>'

    def edit(data: dict[str, Any]) -> None:
        data["rows"][0]["name"] = data["rows"][0]["group"] = data["protocol"] = data["item"] = evil
        data["notes"] = [evil]
        data["summary"][0]["group"] = evil
        data["arguments"][evil] = evil
        data["metrics"]["iou"]["name"] = evil
        data["rows"][0]["paths"]["truth"] = evil

    page = Page(html_report(load_results(edited(results, edit)), cases=50))
    assert page.count("script") == 0


def test_names_that_are_no_unicode_or_markdown_stay_names(results: Path) -> None:
    def edit(data: dict[str, Any]) -> None:
        data["rows"][0]["name"] = "caf\udce9 <b>[link](http://a.b)|"

    page, text = results.with_name("report.html"), results.with_name("report.md")
    done = run("report", edited(results, edit), "-o", page, "--markdown", text, "--cases", 50)
    assert done.exit_code == 0, done.output
    assert "caf\\udce9" in page.read_text()
    assert r"\<b>\[link](http://a.b)\|" in text.read_text()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data.update(format="other"), "no result of"),
        (lambda data: data.update(version=2), "version 2"),
        (lambda data: data.pop("rows"), "lacks a part"),
        (lambda data: data.update(rows=[]), "lacks a part"),
        (lambda data: data.update(rows=[1]), "lacks a part"),
        (lambda data: data["rows"][0].pop("after"), "lacks a part"),
        (lambda data: data["rows"][0].update(paths=None), "lacks a part"),
        (lambda data: data["rows"][0]["after"].update(iou="high"), "lacks a part"),
        (lambda data: data["metrics"].pop("iou"), "lacks a part"),
        (lambda data: data.update(primary="beauty"), "lacks a part"),
        (lambda data: data.update(failures=[{}]), "lacks a part"),
        (lambda data: data.pop("arguments"), "lacks a part"),
        (lambda data: data.pop("threshold"), "lacks a part"),
        (lambda data: data["rows"][0]["after"].update(iou=math.nan), "lacks a part"),
        (lambda data: data["rows"][0]["after"].update(iou=math.inf), "lacks a part"),
        (lambda data: data["rows"][0]["after"].update(iou=10**400), "lacks a part"),
        (lambda data: data["rows"][0].update(name=3), "lacks a part"),
        (lambda data: data["rows"][0].update(paths={"x": "y"}), "lacks a part"),
        (lambda data: data["metrics"]["mba"].update(name=None), "lacks a part"),
    ],
)
def test_other_files_are_refused_in_one_line(
    results: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    done = run("report", edited(results, edit), "-o", results.with_name("report.html"))
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not results.with_name("report.html").exists()


def test_broken_files_and_bad_places_are_refused(results: Path) -> None:
    output = results.with_name("report.html")
    results.write_text(results.read_text()[:500])
    done = run("report", results, "-o", output)
    assert done.exit_code == 1 and "no complete JSON" in done.stderr
    assert run("report", results.with_name("none.json"), "-o", output).exit_code == 1
    done = run("report", results, "-o", results.with_name("report.txt"))
    assert done.exit_code == 1 and "must end in .html" in done.stderr


@QUICK
@given(values=st.lists(NUMBERS, min_size=1, max_size=60))
def test_bins_hold_every_value_and_end_at_zero(values: list[float]) -> None:
    edges, counts = histogram_bins(values)
    assert sum(counts) == len(values) and len(edges) == len(counts) + 1 <= 23
    steps = np.diff(edges)
    assert steps.min() > 0 and steps == pytest.approx(steps[0], rel=1e-6)
    assert not (edges[0] < 0 < edges[-1]) or min(map(abs, edges)) == 0
    assert min(values) >= 0 or edges[0] < 0
    assert len(bin_names(values, edges)) == len(counts)
    ElementTree.fromstring(histogram(values, "a & b", "<x>", signed=True))


def test_few_losses_are_not_hidden_among_many_gains() -> None:
    edges, counts = histogram_bins([-0.4, -0.3, *np.linspace(0, 20, 115)])
    assert counts[edges.index(0) - 1] == 2 and sum(counts[edges.index(0) :]) == 115
    edges, counts = histogram_bins([-0.4, *np.linspace(30, 31, 99)])
    assert len(counts) < 23 and counts[0] == 1


@pytest.mark.parametrize("value", [0.0, 95.671, 100.0])
def test_equal_values_have_readable_axes(value: float) -> None:
    values = [value, value + 1e-9]
    low, high = bin_names(values, histogram_bins(values)[0])[0].split(" to ")
    assert float(high) - float(low) >= 1e-4
    root = ElementTree.fromstring(scatter([(one, one, "") for one in values], "", ("x", "y"), []))
    ticks = [text.text for text in root.findall("text") if text.attrib["text-anchor"] == "end"]
    assert len(ticks) == len(set(ticks)) > 1


@QUICK
@given(points=st.lists(st.tuples(NUMBERS, NUMBERS, st.text("ab<&\"'", max_size=4)), min_size=1, max_size=20))
def test_points_stay_inside_the_plot(points: list[tuple[float, float, str]]) -> None:
    root = ElementTree.fromstring(scatter(points, "title", ("x", "y"), []))
    dots = root.findall(".//circle")
    assert len(dots) == len(points)
    assert all(0 < float(dot.attrib["cx"]) < 480 and 0 < float(dot.attrib["cy"]) < 300 for dot in dots)


@QUICK
@given(span=st.floats(1e-9, 1e9), parts=st.integers(1, 50))
def test_steps_are_round_and_few(span: float, parts: int) -> None:
    step = nice_step(span, parts)
    assert span / step <= parts * (1 + 1e-6)
    assert f"{step:e}"[:5] in ("1.000", "2.000", "5.000")


def test_tables_are_aligned_whatever_stands_in_them() -> None:
    text = as_markdown((["名前", "n"], [["a|b", "1.5"], ["写真", "-"]]))
    assert text == "| 名前 |   n |\n| ---- | --: |\n| a\\|b | 1.5 |\n| 写真 |   - |"
    data = {"metrics": {"hce": {"name": "HCE", "percent": False}, "iou": {"name": "IoU", "percent": True}}}
    assert [shown(data, "hce", 12.0), shown(data, "iou", 0.5), shown(data, "iou", None)] == ["12.00", "50.00", "-"]
    assert shown(data, "iou", -1e-9, sign=True) == "+0.00"
