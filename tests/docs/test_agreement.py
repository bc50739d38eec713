"""Pages say what the place says that they have it from: figures are the results', fields are the server's."""

import re
from pathlib import Path

import pytest

import segrefiner

ROOT = Path(__file__).parents[2]
KINDS = {
    "as of a detector": "yolo-like",
    "polygons": "polygon",
    "as of SAM": "sam-like",
    "lacking a piece": "missing",
    "of a strong network": "strong",
    "thin structures": "thin",
    "exact masks of everyday things": "perfect",
    "exact masks of thin structures": "thin-perfect",
    "exact masks of single objects": "instances-exact",
}
"""Rows of the README's table by their beginning, and the results' kind of mask."""

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not in the source archive")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def cells(row: str) -> list[str]:
    return [one.strip(" *") for one in row.strip().strip("|").split("|")]


def numbers(cell: str) -> list[float]:
    return [float(one) for one in re.findall(r"[+-]?\d+(?:\.\d+)?", cell)]


def results() -> dict[str, tuple[list[float], list[float], float]]:
    """For each kind of mask IoU and mBA as given, what they gained, and how many of a hundred were harmed."""
    table = text("docs/results.md").partition("## Masks of every kind")[2].partition("\n## ")[0]
    rows = [cells(line) for line in table.splitlines() if re.match(r"\| [a-z]", line)]
    found = {
        row[0]: (numbers(row[2]), numbers(row[3]), numbers(row[4])[0])
        for row in rows
        if len(row) == 9 and "%" in row[4]
    }
    assert set(KINDS.values()) <= set(found)
    return found


def near(told: list[float], measured: list[float]) -> bool:
    """Whether the figures that are told are those measured, to their one decimal."""
    return len(told) == len(measured) and all(abs(a - b) <= 0.0501 for a, b in zip(told, measured, strict=True))


def test_the_readme_s_figures_are_the_results() -> None:
    table = text("README.md").partition("## Good at, bad at")[2].partition("\n## ")[0]
    rows = [cells(line) for line in table.splitlines() if re.match(r"\| \**(of|as|poly|lack|thin|exact)", line)]
    assert len(rows) == 1 + len(KINDS)
    for name, coarse, gained, harmed in rows:
        known = [kind for start, kind in KINDS.items() if name.startswith(start)]
        if not known:
            assert name.startswith("of a weak network")
            continue
        given, gains, share = results()[known[0]]
        assert near(numbers(coarse), given) and near(numbers(gained), gains), name
        assert share == (0 if harmed == "none" else numbers(harmed)[0]), name


def test_figures_of_the_weak_network_agree_everywhere() -> None:
    table = text("docs/results.md").partition("## Real coarse masks")[2]
    coarse, refined = (
        numbers(re.search(rf"^\| {one} .*", table, re.MULTILINE)[0])[1:3] for one in ("coarse", "refined")
    )  # type: ignore[index]
    (row,) = [cells(line) for line in text("README.md").splitlines() if line.startswith("| of a weak network")]
    assert near(numbers(row[1]), coarse)
    assert near(numbers(row[2]), [b - a for a, b in zip(coarse, refined, strict=True)])
    card = " ".join(text("src/segrefiner/model/bundled/README.md").split())
    assert f"IoU {coarse[0]} to {refined[0]}, mBA {coarse[1]} to {refined[1]}" in card


def test_the_questions_figures_are_the_results() -> None:
    before_and_after = {
        (round(a, 1), round(a + gain, 1))
        for given, gains, _ in results().values()
        for a, gain in zip(given, gains, strict=True)
    }
    told = re.findall(r"(?<![\d.])(\d\d\.\d) to (\d\d\.\d)(?![\d.])", text("docs/faq.md"))
    assert len(told) >= 3 and {(float(a), float(b)) for a, b in told} <= before_and_after


def test_the_fields_of_the_server_s_forms_are_told() -> None:
    pytest.importorskip("fastapi")
    from segrefiner.serving.forms import Common, LabelFields, MaskFields

    serve, agents = text("docs/serve.md"), text("docs/agents.md")
    for field in {*MaskFields.model_fields, *LabelFields.model_fields}:
        assert f"`{field}`" in serve, field
    for page, start in ((serve, "Both kinds of form take"), (agents, "The first three take")):
        (sentence,) = [line for line in page.splitlines() if line.startswith(start)]
        assert set(re.findall(r"`(\w+)`", sentence)) == set(Common.model_fields)


def test_all_that_the_package_offers_is_on_the_api_s_page() -> None:
    page = text("docs/api.md")
    for name in set(segrefiner.__all__) - {"__version__"}:
        assert re.search(rf"(segrefiner\.|[ ,]){name}\b", page), name


def test_the_changelog_says_nothing_twice() -> None:
    for release in text("CHANGELOG.md").split("\n## ")[1:]:
        lines = [re.split(r"[,.:;]", line)[0] for line in release.splitlines() if line.startswith("- ")]
        assert [line for line in lines if lines.count(line) > 1] == []
