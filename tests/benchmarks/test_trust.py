"""The trust benchmark: laws of its coarse masks, that free is free of rules, and the figures of its tables."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos, open_folder
from segrefiner.evaluation.metrics import iou
from segrefiner.model.unet import DenoisingUNet, normalize
from segrefiner.model.weights import save

# Not part of the package, and not in its source archive.
coarse_kinds, cases = map(pytest.importorskip, ("benchmarks.common.coarse_kinds", "benchmarks.common.cases"))
street, subjects, thin_kinds = map(
    pytest.importorskip, ("benchmarks.common.street", "benchmarks.common.subjects", "benchmarks.common.thin_kinds")
)
tables, trust, trust_tables, scenes = map(
    pytest.importorskip,
    (
        "benchmarks.common.tables",
        "benchmarks.quality.trust",
        "benchmarks.quality.trust_tables",
        "benchmarks.common.scenes",
    ),
)

SCENE = scenes.scene(0.06, 2, seed=3)
IMAGE, TRUTH = SCENE.image, np.logical_or.reduce(SCENE.coarse)
HEIGHT, WIDTH = TRUTH.shape


def labels() -> np.ndarray:
    """Sky above a road, two cars on it, a strip of void."""
    made = np.full((90, 120), 3, np.uint8)
    made[:40] = 0
    made[50:75, 15:50], made[50:75, 70:105] = 8, 8
    made[40:42] = street.VOID
    return made


# Coarse masks.


@pytest.mark.parametrize(("kind", "least", "most"), [("sam-like", 0.88, 0.99), ("yolo-like", 0.78, 0.97)])
def test_masks_of_networks_are_about_as_good_as_real_ones(kind: str, least: float, most: float) -> None:
    made = [coarse_kinds.make(kind, f"photo {n}", IMAGE, TRUTH, 0) for n in range(5)]
    assert least < np.mean([iou(mask, TRUTH) for mask in made]) < most
    assert all(mask.shape == TRUTH.shape and mask.dtype == bool for mask in made)


def test_errors_of_networks_stay_at_contours() -> None:
    far = np.zeros((400, 500), bool)
    far[180:220, 40:460] = True
    for name in map(str, range(5)):
        wrong = coarse_kinds.make("sam-like", name, np.zeros((400, 500, 3), np.uint8), far, 0) ^ far
        assert not wrong[:150].any() and not wrong[250:].any()


def test_a_box_cuts_off_what_is_beyond_it() -> None:
    bar = np.zeros((400, 400), bool)
    bar[100:300, 100:300] = True
    rows, columns = (np.flatnonzero(coarse_kinds.make("yolo-like", "bar", IMAGE, bar, 0).any(axis=a)) for a in (1, 0))
    for line in (rows, columns):
        assert 70 < line[0] < 130 and 270 < line[-1] < 330


@pytest.mark.parametrize("kind", street.KINDS)
def test_seed_and_name_alone_decide_about_a_label_map(kind: str) -> None:
    truth = labels()
    made = street.make_map(kind, "a", truth, 0)
    np.random.default_rng().random()
    np.testing.assert_array_equal(street.make_map(kind, "a", truth, 0), made)
    assert made.shape == truth.shape and made.dtype == truth.dtype
    assert set(np.unique(made)) <= set(np.unique(truth))
    right = float(np.mean(made == truth))
    assert right == 1 if kind == "street-exact" else 0.85 < right < 0.999


def test_a_coarser_grid_makes_a_worse_map() -> None:
    right = [np.mean(street.make_map(kind, "a", labels(), 0) == labels()) for kind in ("street-4", "street-8")]
    assert right[0] > right[1]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(thin_kinds, "SIZE", 192)
    for folder in ("images", "masks", "coarse_isnet", "coarse_net", "cutouts", "street/images", "street/labels"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("one_1", "two_2"):
        Image.fromarray(IMAGE).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(TRUTH).save(tmp_path / "masks" / f"{name}.png")
    Image.fromarray(np.roll(TRUTH, 2, axis=1)).save(tmp_path / "coarse_isnet" / "one_1.png")
    Image.fromarray(~TRUTH).save(tmp_path / "coarse_isnet" / "two_2.png")
    Image.fromarray(labels()).save(tmp_path / "street/labels" / "a.png")
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "street/images" / "a.png")
    for number in range(10):
        rows, columns = np.indices((120, 120)) - 60
        alpha = 255 * ((np.hypot(rows, columns) < 20 + number) | (abs(columns) < 2))
        Image.fromarray(np.dstack([np.full((120, 120, 3), 90), alpha]).astype(np.uint8)).save(
            tmp_path / "cutouts" / f"{number}.png"
        )
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    return tmp_path


def test_a_strong_mask_of_another_object_is_left_out(data: Path) -> None:
    one, two = trust.find_photos(data)
    found = [cases.coarse_mask(photo, "strong", IMAGE, TRUTH, 0) for photo in (one, two)]
    np.testing.assert_array_equal(found[0], np.roll(TRUTH, 2, axis=1))
    assert found[1] is None
    # And none of them counts as a weak network's mask.
    assert cases.coarse_mask(one, "real", IMAGE, TRUTH, 0) is None


def test_the_exact_masks_of_thin_structures_are_the_truth_and_the_others_are_not(data: Path) -> None:
    composites = thin_kinds.structures(open_folder(data), 7, seed=0)
    assert [c.name.split("_")[0] for c in composites] == list(thin_kinds.STRUCTURES)
    again = thin_kinds.structures(open_folder(data), 7, seed=0)
    for composite, same in zip(composites[::3], again[::3], strict=True):
        image, truth = composite.read()
        for one, other in zip(same.read(), (image, truth), strict=True):
            np.testing.assert_array_equal(one, other)
        assert image.shape == (*truth.shape, 3) and 0 < truth.mean() < 0.5
        np.testing.assert_array_equal(thin_kinds.make("thin-perfect", composite.name, image, truth, 0), truth)
        for way in thin_kinds._WAYS:
            made = [way(truth, np.random.default_rng(5)) for _ in range(2)]
            np.testing.assert_array_equal(*made)
            assert 0.1 < iou(made[0], truth) < 0.99


def test_only_cutouts_that_training_never_sees_are_taken(data: Path) -> None:
    assert [path.name for path in thin_kinds.held_back_cutouts(data / "cutouts")] == ["9.png"]


def test_instances_are_single_parts(data: Path) -> None:
    maps = street.find_maps(data / "street")
    made = subjects.of_instances([], maps, (), ["instances-exact"], 5, seed=0)
    assert [subject.name for subject in made] == ["street_a_8_0", "street_a_8_1"]
    for subject in made:
        image, truth = subject.read()
        assert truth.sum() == 25 * 35 and image.shape == (90, 120, 3)
        np.testing.assert_array_equal(subject.coarse("instances-exact", image, truth), truth)


def test_what_is_left_out_shares_no_photo_and_no_sequence_with_what_is_learnt(data: Path) -> None:
    maps = [replace(files, name=f"street_A_{n}") for n in range(6) for files in street.find_maps(data / "street")]
    made = subjects.of_instances([], maps, (), ["instances-exact"], 12, seed=0)
    assert len({subject.name for subject in made}) == 12 and {subject.source for subject in made} == {"street_A"}
    photos = subjects.of_photos(find_photos(data), ["perfect"], 0)
    assert [subject.source for subject in photos] == [subject.name for subject in photos]


# Free.


class Wrong:
    """A network that answers the opposite of a mask's middle, not at all surely, and counts how often it is asked."""

    def __init__(self) -> None:
        self.config, self.device, self.dtype = TINY, torch.device("cpu"), torch.float32
        self.asked = 0

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.asked += 1
        return torch.full_like(x[:, 3:], -0.1)


def test_free_keeps_whatever_the_network_says_and_both_ask_it_once() -> None:
    network = Wrong()
    ways, remembering = trust.two_ways(Refiner(network))
    mask = np.zeros((128, 128), bool)
    mask[40:90, 40:90] = True
    photo = np.zeros((128, 128, 3), np.uint8)
    ours = ways["ours"](photo, mask, steps=1)
    np.testing.assert_array_equal(ours.mask, mask)
    asked = network.asked
    free = ways["free"](photo, mask, steps=1)
    assert not free.mask.any() and network.asked == asked
    remembering.forget()
    ways["free"](photo, mask, steps=1)
    assert network.asked > asked


def test_an_answer_that_is_written_into_is_remembered_as_it_was() -> None:
    network = trust.Remembering(Wrong())
    x = torch.cat([normalize(torch.zeros(1, 3, 32, 32)), torch.ones(1, 1, 32, 32)], dim=1)
    timesteps = torch.tensor([5])
    network(x, timesteps).zero_()
    assert float(network(x, timesteps).max()) == pytest.approx(-0.1)


# Tables.


def row(photo: str, method: str, value: float, kind: str = "real", **more: object) -> object:
    return tables.Row(photo, kind, method, value, value, math.nan, 1.0, **more)


def test_figures_are_gains_over_the_coarse_masks() -> None:
    rows = [row("a_1", "coarse", 0.8), row("b_1", "coarse", 0.6)]
    rows += [row("a_1", "ours-1", 0.9), row("b_1", "ours-1", 0.594), row("a_1", "free-1", 0.8, untouched=True)]
    found = trust_tables.figures(rows)
    assert found["real", "coarse"].iou == pytest.approx(70)
    ours, free = found["real", "ours-1"], found["real", "free-1"]
    assert ours.iou == pytest.approx(4.7) and ours.harmed == 50 and ours.untouched == 0 and ours.masks == 2
    assert free.untouched == 100 and free.harmed == 0
    text = trust_tables.main_table(rows, ["strong", "real"], 1)
    assert "| 70.0 / 70.0 | +4.70 / +4.70 |" in " ".join(text.split()) and "strong" not in text
    by_set = trust_tables.set_table(rows, ["real"], 1)
    assert "real, a" in by_set and "real, b" in by_set


def test_label_maps_are_scored_by_the_mean_over_classes_of_the_iou_of_all_scenes() -> None:
    def of(scene: str, label: int, method: str, both: int, either: int) -> object:
        return row(f"{scene}/{label}", method, both / either, "street-8", intersection=both, union=either)

    rows = [of("s", 0, "coarse", 90, 100), of("t", 0, "coarse", 1, 100), of("s", 8, "coarse", 5, 10)]
    rows += [of("s", 0, "ours-1", 90, 100), of("t", 0, "ours-1", 1, 100), of("s", 8, "ours-1", 9, 10)]
    # A class that the scene does not show, of which the coarse map has some pixels.
    rows += [replace(of("t", 8, m, 0, 10), iou=math.nan, mba=math.nan) for m in ("coarse", "ours-1")]
    found = trust_tables.figures(rows)
    assert found["street-8", "coarse"].iou == pytest.approx(100 * (91 / 200 + 5 / 20) / 2)
    assert found["street-8", "ours-1"].iou == pytest.approx(100 * (9 - 5) / 20 / 2)
    assert found["street-8", "ours-1"].masks == 3
    line = next(x for x in trust_tables.class_table(rows, ["street-8"], 1).splitlines() if "| car " in x)
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["25.00", "+20.00"]


def test_runs_are_compared_where_their_coarse_masks_are_the_same() -> None:
    now = [row("a", "coarse", 0.8, union=10), row("a", "ours-1", 0.9), row("b", "coarse", 0.8, union=10)]
    before = [row("a", "coarse", 0.8, union=10), row("a", "ours-1", 0.7), row("b", "coarse", 0.8, union=11)]
    table, note = trust_tables.comparison(now, before, ["real"], 1)
    assert "| -10.00 / -10.00 | +10.00 / +10.00 |" in " ".join(table.split())
    assert note == "compared: 1 coarse masks that both runs have; 1 that differ are left out"


def run_trust(data: Path, *options: object) -> Result:
    more = ["--model", data / "tiny.safetensors", "--street", data / "street", "--objects", data / "cutouts"]
    return CliRunner().invoke(trust.main, [str(a) for a in [data, *more, *options]])


def test_the_command_measures_every_kind_and_goes_on_where_it_stopped(data: Path) -> None:
    kinds = "strong,perfect,thin-perfect,instances-exact,street-8"
    files = ["--json", data / "out.json", "--markdown", data / "out.md"]
    done = run_trust(data, "--kinds", kinds, "--photos", 2, "--steps", 1, *files)
    assert done.exit_code == 0, done.output
    assert (data / "out.md").read_text() == done.stdout
    content = json.loads((data / "out.json").read_text())
    assert set(content["summary"]) == set(kinds.split(","))
    assert content["summary"]["thin-perfect"]["coarse"]["iou"] == 100
    assert content["summary"]["strong"]["free-1"]["masks"] == 1
    assert "1 masks show another object (IoU below a half): two_2" in done.stdout
    # One scene, whose three classes are masks; all eleven have rows.
    assert content["summary"]["street-8"]["coarse"]["masks"] == 3
    assert sum(r["kind"] == "street-8" for r in content["rows"]) == 11 * 3
    again = run_trust(data, "--kinds", "perfect,street-8", "--steps", "1,2", "--photos", 2, "--against",
                      data / "out.json", *files)  # fmt: skip
    assert again.exit_code == 0, again.output
    assert "By steps" in again.stdout and "Against the other run" in again.stdout
    after = json.loads((data / "out.json").read_text())["rows"]
    assert all(row in after for row in content["rows"])
    assert len(after) == len(content["rows"]) + 2 * 2 + 2 * 11


def test_photos_that_training_leaves_out_are_taken_alone(data: Path) -> None:
    done = run_trust(data, "--kinds", "perfect", "--hold-back", 2, "--steps", 1)
    assert done.exit_code == 0, done.output
    assert "1 of 2 photos" in done.stdout and "perfect, two" in done.stdout and "perfect, one" not in done.stdout
    nothing = run_trust(data, "--kinds", "perfect", "--hold-back", 40)
    assert nothing.exit_code == 1 and "2 photos, of which none is held back" in nothing.output
