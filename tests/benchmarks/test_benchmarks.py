"""The benchmarks: laws of the coarse masks, that each peer refines at all, and that both commands run to the end."""

import csv
import json
import math
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from helpers.tiny import TINY
from segrefiner.errors import SegRefinerError
from segrefiner.evaluation.metrics import iou
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save

pytestmark = pytest.mark.slow

# Not part of the package, and not in its source archive.
coarse_kinds = pytest.importorskip("benchmarks.common.coarse_kinds")
peers, quality, scenes, speed, tables = map(
    pytest.importorskip,
    (
        "benchmarks.common.peers",
        "benchmarks.quality.methods",
        "benchmarks.common.scenes",
        "benchmarks.cost.speed",
        "benchmarks.common.tables",
    ),
)
calibration, gallery, steps = map(
    pytest.importorskip, ("benchmarks.quality.calibration", "benchmarks.quality.gallery", "benchmarks.quality.steps")
)
fuzz_readers = pytest.importorskip("benchmarks.service.fuzz_readers")
stages, published = map(pytest.importorskip, ("benchmarks.cost.stages", "benchmarks.quality.published"))

MADE = [kind for kind in coarse_kinds.KINDS if kind != coarse_kinds.REAL]
NEEDS_OPENCV = {"polygon", "grabcut-box"}
SCENE = scenes.scene(0.06, 2, seed=3)
IMAGE, TRUTH = SCENE.image, np.logical_or.reduce(SCENE.coarse)


def made(kind: str, name: str = "photo", seed: int = 0, truth: np.ndarray = TRUTH) -> np.ndarray:
    if kind in NEEDS_OPENCV:
        pytest.importorskip("cv2")
    image = np.asarray(Image.fromarray(IMAGE).resize(truth.shape[::-1]))
    return coarse_kinds.make(kind, name, image, truth, seed)


@pytest.mark.parametrize("kind", MADE)
def test_a_coarse_mask_has_the_size_of_the_truth_and_is_about_as_good_as_real_ones(kind: str) -> None:
    before = TRUTH.copy()
    mask = made(kind)
    assert mask.shape == TRUTH.shape and mask.dtype == bool
    np.testing.assert_array_equal(TRUTH, before)
    if kind == "perfect":
        np.testing.assert_array_equal(mask, TRUTH)
    elif kind != "grabcut-box":  # which may find the object exactly, or miss it
        assert 0.5 < iou(mask, TRUTH) < 0.995


@pytest.mark.parametrize("kind", MADE)
def test_seed_and_name_alone_decide_about_a_coarse_mask(kind: str) -> None:
    mask = made(kind)
    np.random.default_rng().random()
    made("missing")
    np.testing.assert_array_equal(made(kind), mask)
    if kind not in ("low-8", "low-16", "perfect", "grabcut-box"):
        assert (made(kind, seed=1) != mask).any() and (made(kind, name="other") != mask).any()


@pytest.mark.parametrize("kind", MADE)
def test_an_empty_truth_stays_empty(kind: str) -> None:
    assert not made(kind, truth=np.zeros((40, 50), bool)).any()


@pytest.mark.parametrize("kind", MADE)
def test_a_speck_and_a_full_photo_are_masks_too(kind: str) -> None:
    speck = np.zeros((40, 50), bool)
    speck[20:22, 30] = True
    for truth in (speck, np.ones((40, 50), bool)):
        assert made(kind, truth=truth).shape == truth.shape


@pytest.mark.parametrize("kind", ["eroded", "dilated", "shifted", "polygon", "missing", "false"])
def test_large_and_small_objects_are_spoilt_alike(kind: str) -> None:
    # Where the pieces lie depends on the draw, so a mean over draws.
    double = np.kron(TRUTH, np.ones((2, 2), bool))
    small, large = (np.mean([iou(made(kind, seed=s, truth=t), t) for s in range(12)]) for t in (TRUTH, double))
    assert small == pytest.approx(large, abs=0.05)


def test_kinds_err_to_the_side_that_their_names_say() -> None:
    for smaller in ("eroded", "missing"):
        assert not (made(smaller) & ~TRUTH).any() and (TRUTH & ~made(smaller)).any()
    for larger in ("dilated", "false"):
        assert not (TRUTH & ~made(larger)).any() and (made(larger) & ~TRUTH).any()


def test_holes_stay_holes_in_a_polygon() -> None:
    ring = np.zeros((120, 120), bool)
    ring[10:110, 10:110], ring[45:75, 45:75] = True, False
    polygon = made("polygon", truth=ring)
    assert not polygon[60, 60] and polygon[25, 60]


@pytest.mark.parametrize("name", [name for name in peers.PEERS if name != "morphology"])
def test_a_peer_follows_the_edges_of_a_plain_photo(name: str) -> None:
    try:
        refine = peers.PEERS[name]()
    except peers.UnavailableError as reason:
        pytest.skip(str(reason))
    truth = np.zeros((90, 120), bool)
    truth[20:70, 30:90] = True
    noise = np.random.default_rng(0).normal(0, 4, (90, 120, 3))
    image = np.clip(np.where(truth[..., None], (200, 60, 40), (40, 90, 160)) + noise, 0, 255).astype(np.uint8)
    coarse = np.roll(truth, (2, -2), axis=(0, 1))
    refined = refine(image, coarse)
    assert refined.shape == truth.shape and refined.dtype == bool
    assert iou(refined, truth) > iou(coarse, truth) + 0.03
    np.testing.assert_array_equal(refine(image, coarse), refined)


def test_morphology_removes_specks_and_leaves_discs() -> None:
    rows, columns = np.indices((100, 100))
    disc = np.hypot(rows - 50, columns - 50) < 30
    spoilt = disc.copy()
    spoilt[5, 5] = True
    refined = peers.morphology()(np.zeros((100, 100, 3), np.uint8), spoilt)
    assert not refined[5, 5]
    assert iou(refined, disc) > 0.99


def row(photo: str, method: str, value: float, error: str = "") -> object:
    return tables.Row(photo, "real", method, value, math.nan if photo == "b" else value, value, 2.0, error)


def test_a_table_shows_absolute_figures_of_the_coarse_masks_and_gains_of_all_others() -> None:
    rows = [row("a", "coarse", 0.8), row("b", "coarse", 0.6), row("a", "m", 0.9), row("b", "m", 0.594, "Oops: no")]
    cells = tables.summarize(rows, ["coarse", "m"], ["real", "polygon"])
    assert cells["coarse"]["real"].iou == pytest.approx(70)
    gain = cells["m"]["real"]
    assert gain.masks == 2 and gain.failed == 1 and gain.harmed == 50 and gain.seconds == 2
    assert gain.iou == pytest.approx(4.7) and gain.mba == pytest.approx(10)
    text = tables.markdown(cells, ["real", "polygon"], ["a note"])
    assert "| coarse (absolute)  | 70.00 | 70.00 |" in text and "| +4.70 | +4.70 |" in text
    assert "polygon" not in text and text.endswith("- a note\n")


def test_perfect_masks_are_kept_out_of_the_last_mean() -> None:
    rows = [row("a", "coarse", 0.8), row("a", "m", 0.9)]
    rows += [replace(r, kind="perfect", iou=1.0 if r.method == "coarse" else 0.98) for r in rows]
    text = tables.markdown(tables.summarize(rows, ["coarse", "m"], ["real", "perfect"]), ["real", "perfect"], [])
    assert "| real | perfect | mean | imperfect |" in " ".join(text.splitlines()[0].split())
    assert "| m | +10.00 | -2.00 | +4.00 | +10.00 |" in " ".join(text.split())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("images", "masks", "coarse_net"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        Image.fromarray(IMAGE).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(TRUTH).save(tmp_path / "masks" / f"{name}.png")
    Image.fromarray(np.roll(TRUTH, 3, axis=1)).save(tmp_path / "coarse_net" / "two.png")
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    return tmp_path


def run_quality(data: Path, *options: object) -> Result:
    arguments = [data, "--model", data / "tiny.safetensors", "--json", data / "out.json", *options]
    return CliRunner().invoke(quality.main, [str(a) for a in arguments])


def test_quality_measures_every_method_on_every_kind(data: Path) -> None:
    options = ["--methods", "morphology,guided-filter,ours-1", "--kinds", "real,eroded,perfect"]
    files = ["--csv", data / "out.csv", "--markdown", data / "out.md"]
    done = run_quality(data, *options, *files)
    assert done.exit_code == 0, done.output
    assert (data / "out.md").read_text() == done.stdout
    content = json.loads((data / "out.json").read_text())
    # One photo has no real coarse mask.
    assert len(content["rows"]) == 4 * (1 + 2 + 2)
    assert content["summary"]["coarse"]["perfect"]["iou"] == 100
    assert content["summary"]["ours-1"]["real"]["masks"] == 1
    with (data / "out.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(content["rows"])


def test_quality_goes_on_where_it_stopped(data: Path) -> None:
    first = run_quality(data, "--photos", 1, "--methods", "morphology", "--kinds", "real,eroded")
    assert first.exit_code == 0, first.output
    before = json.loads((data / "out.json").read_text())["rows"]
    second = run_quality(data, "--methods", "morphology,ours-1", "--kinds", "real,eroded")
    assert second.exit_code == 0, second.output
    after = json.loads((data / "out.json").read_text())["rows"]
    assert len(after) == 3 * 3 and all(row in after for row in before)
    other = run_quality(data, "--seed", 1, "--methods", "morphology", "--kinds", "real")
    assert other.exit_code == 1 and "other seed" in other.output


def test_quality_counts_failures_and_says_what_is_not_installed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> peers.Refine:
        def refine(image: np.ndarray, coarse: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of luck")

        return refine

    def absent() -> peers.Refine:
        raise peers.UnavailableError("not installed; run: pip install it")

    monkeypatch.setitem(peers.PEERS, "grabcut", broken)
    monkeypatch.setitem(peers.PEERS, "knn", absent)
    done = run_quality(data, "--methods", "grabcut,knn", "--kinds", "eroded")
    assert done.exit_code == 0, done.output
    assert "grabcut failed on 2 masks" in done.stdout and "out of luck" in done.stdout
    assert "knn is left out: not installed" in done.stdout
    summary = json.loads((data / "out.json").read_text())["summary"]
    assert summary["grabcut"]["eroded"]["iou"] == 0 and "knn" not in summary


def test_quality_refuses_what_it_does_not_know(data: Path) -> None:
    assert run_quality(data, "--kinds", "fuzzy").exit_code == 2
    assert run_quality(data, "--methods", "magic").exit_code == 2
    (data / "out.json").write_text('{"rows": 3}')
    refused = run_quality(data, "--methods", "morphology", "--kinds", "real")
    assert refused.exit_code == 1 and "no result of this benchmark" in refused.output


def test_speed_compares_with_a_reference_and_draws_how_cost_grows(data: Path) -> None:
    files = ["--json", str(data / "speed.json"), "--plot", str(data / "speed.svg")]
    model = ["--model", str(data / "tiny.safetensors")]
    done = CliRunner().invoke(speed.main, ["--quick", "--axes", "steps", "--no-memory", *model, *files])
    assert done.exit_code == 0, done.output
    cells = json.loads((data / "speed.json").read_text())["cells"]
    assert [cell["steps"] for cell in cells] == [6, 1]
    assert cells[0]["evaluations"] > cells[1]["evaluations"]
    assert all(cell["ratio"] > 0 and cell["peak_gib"] is None for cell in cells)
    assert ElementTree.parse(data / "speed.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("benchmark", "drawn", "kinds", "masks"),
    [(calibration, False, "real,eroded", 3), (calibration, True, "real,eroded", 3), (steps, True, "real", 1)],
)
def test_curves_are_printed_and_drawn(benchmark: ModuleType, drawn: bool, kinds: str, masks: int, data: Path) -> None:
    options = ["--model", str(data / "tiny.safetensors"), "--kinds", kinds]
    if drawn:
        pytest.importorskip("matplotlib")
        options += ["--plot", str(data / "plot.svg")]
    done = CliRunner().invoke(benchmark.main, [str(data), *options])
    assert done.exit_code == 0, done.output
    assert f"{masks} masks of" in done.stdout and f"kinds {kinds.replace(',', ', ')}" in done.stdout
    assert not drawn or ElementTree.parse(data / "plot.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(("count", "rows"), [(1, 2), (2, 3), (5, 3)])
def test_a_gallery_shows_the_worst_and_the_best(count: int, rows: int, data: Path) -> None:
    options = ["--model", data / "tiny.safetensors", "--kinds", "real,eroded", "--count", count]
    done = CliRunner().invoke(gallery.main, [str(a) for a in [data, "-o", data / "gallery.png", *options]])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("IoU") == rows
    with Image.open(data / "gallery.png") as picture:
        assert picture.height == rows * (gallery.PANEL + gallery.CAPTION)
    refused = CliRunner().invoke(gallery.main, [str(data), "-o", str(data / "gallery.png"), "--only", "nothing"])
    assert refused.exit_code == 1 and "no such photo" in refused.output


@pytest.mark.parametrize("skew", [0.0, 0.2])
def test_calibration_is_the_distance_between_belief_and_truth(skew: float) -> None:
    rng = np.random.default_rng(0)
    believed = rng.uniform(0, 1 - skew, 200_000)
    true = rng.uniform(size=believed.size) < believed + skew
    which = (believed * 10).astype(int)
    counts = np.stack([np.bincount(which, weights, minlength=10) for weights in (None, believed, true)])
    means, error = calibration.reliability(counts.astype(float))
    assert error == pytest.approx(skew, abs=0.01)
    filled = counts[0] > 0
    np.testing.assert_allclose(means[1][filled], means[0][filled] + skew, atol=0.02)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux only")
def test_memory_is_that_of_a_process_of_its_own(data: Path) -> None:
    cell = speed.Cell(megapixels=0.05, steps=1)
    before = speed.Figures(1, 1, 1, 1, 1, 1)
    after = speed.with_memory(speed.Model(str(data / "tiny.safetensors"), "cpu"), cell, before)
    assert 0 < after.working_gib < after.peak_gib < 4


def test_a_stage_s_time_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 1, 3, 7, 15])
    monkeypatch.setattr(stages.time, "perf_counter", lambda: float(next(clock)))
    watch = stages.Stopwatch()
    inner = watch.of("inner", lambda: 5)
    with watch.stage("outer"):
        assert inner() == 5
    assert watch.seconds == {"outer": 1 + 4, "inner": 2}


def test_the_stages_of_a_refinement_sum_to_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "SCENES", {"one": (0.03, 1), "three": (0.03, 3)})
    monkeypatch.setattr(stages, "peaks", lambda dtype: (1e12, 1e10))
    result = CliRunner().invoke(stages.main, ["--rounds", "1"])
    assert result.exit_code == 0, result.output
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in result.output.splitlines() if "|" in line}
    for column in (0, 1):
        assert sum(float(rows[stage][column]) for stage in stages.STAGES) == pytest.approx(100, abs=1)
    assert int(rows["views"][1]) == 3
    # Everything is put back.
    assert stages.refiner.read_photo.__name__ == "read_photo"


def test_the_published_way_is_compared(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(np.repeat(IMAGE, 2, 0), 2, 1)).save(tmp_path / "photo.png")
    Image.fromarray(np.repeat(np.repeat(TRUTH, 2, 0), 2, 1)).save(tmp_path / "mask.png")
    save(DenoisingUNet(TINY), tmp_path / "base.safetensors")
    arguments = [tmp_path / "photo.png", tmp_path / "mask.png", "--weights", tmp_path / "base.safetensors"]
    result = CliRunner().invoke(published.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "as published, float32" in result.output and "times faster" in result.output


@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_a_reader_gives_a_value_or_refuses(name: str) -> None:
    if name in ("form", "event"):
        pytest.importorskip("segrefiner.serving.page.values")
    reader = fuzz_readers.READERS[name]
    for seed in range(12):
        content = reader.make(random.Random(f"{name} {seed}"))
        assert content == reader.make(random.Random(f"{name} {seed}"))
        with suppress(SegRefinerError):
            assert reader.read(content) >= 0
