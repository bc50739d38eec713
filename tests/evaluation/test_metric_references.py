"""Metrics against the libraries that defined them.

`data/metrics_reference.json` holds what those libraries gave, so that the comparison is made without them,
too. To record it anew: `python tests/evaluation/test_metric_references.py`, with `tests` in `PYTHONPATH`, the packages
that `REFERENCES` imports and an OpenCV below 4.13.
"""

import json
import math
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.evaluation.masks import Array, Mask, Score, disk, soften
from segrefiner.evaluation import dis_metrics, metrics
from segrefiner.imaging.shapes import contours

DATA = Path(__file__).parents[1] / "data"
PHOTOS = ("CCP_0016", "car208_0007")
PARITY = json.loads((DATA / "parity" / "expected.json").read_text())


def photo(name: str) -> tuple[Mask, Mask]:
    coarse, truth = (
        np.asarray(Image.open(DATA / "parity" / f"{name}_{kind}.png").convert("L")) >= 128
        for kind in ("coarse", "truth")
    )
    return coarse, truth


def cases() -> dict[str, tuple[Mask, Mask]]:
    """Pairs of prediction and truth, made of whole numbers only, and two photos' coarse masks."""
    spokes = np.zeros((180, 240), np.bool_)
    spokes[20:160:12], spokes[:, 30:210:17] = True, True
    spokes |= disk(180, 240, 90, 120, 40)
    broken = spokes & ~disk(180, 240, 60, 60, 35)
    broken[100:112, 150:] = True
    noise = np.kron(np.random.default_rng(3).integers(0, 256, (30, 40)) < 120, np.ones((7, 6), np.bool_))
    eaten = noise ^ (np.kron(np.random.default_rng(4).integers(0, 256, (70, 80)) < 30, np.ones((3, 3))) > 0)
    frame = ~disk(700, 900, 300, 420, 260) | disk(700, 900, 300, 420, 90)
    shaken = (~disk(700, 900, 310, 415, 250) | disk(700, 900, 290, 430, 99)) ^ disk(700, 900, 600, 60, 25)
    return {
        "disks": (disk(200, 300, 104, 150, 66), disk(200, 300, 100, 143, 70)),
        "spokes": (broken, spokes),
        "noise": (eaten, noise),
        "frame": (shaken, frame),
        **{name: photo(name) for name in PHOTOS},
    }


CASES = cases()


def opencv_mba(pred: Mask, truth: Mask) -> float:
    cv2 = pytest.importorskip("cv2")
    scores = []
    for step in range(5):
        radius = 1 + int((sum(truth.shape) / 300 - 1) / 5 * step)
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        band = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, element) > 0
        scores.append((pred == truth)[band].mean())
    return float(np.mean(scores))


def coco_boundary_iou(pred: Mask, truth: Mask) -> float:
    mask_api = pytest.importorskip("faster_coco_eval.core.mask")
    encoded = [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in (pred, truth)]
    ours, theirs = (mask_api.decode(mask_api.rleToBoundary(rle, 0.02)) > 0 for rle in encoded)
    return float((ours & theirs).sum() / (ours | theirs).sum())


def opencv_boundary_f(pred: Mask, truth: Mask) -> float:
    cv2 = pytest.importorskip("cv2")
    morphology = pytest.importorskip("skimage.morphology")
    element = morphology.disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    edges = []
    for mask in (pred, truth):
        beside, below, corner = np.roll(mask, -1, 1), np.roll(mask, -1, 0), np.roll(mask, (-1, -1), (0, 1))
        edge = (mask ^ beside) | (mask ^ below) | (mask ^ corner)
        edge[-1], edge[:, -1], edge[-1, -1] = (mask ^ beside)[-1], (mask ^ below)[:, -1], False
        edges.append(edge)
    near = [cv2.dilate(edge.astype(np.uint8), element) > 0 for edge in edges]
    precision, recall = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    return float(2 * precision * recall / (precision + recall))


def medpy(name: str) -> Score:
    def score(pred: Array, truth: Array) -> float:
        return float(getattr(pytest.importorskip("medpy.metric.binary"), name)(pred, truth))

    return score


def sod(name: str, result: Callable[[Any], Any]) -> Score:
    def score(pred: Array, truth: Array) -> float:
        library = pytest.importorskip("py_sod_metrics")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure = getattr(library, name)()
        measure.step(pred.astype(np.float64), truth, normalize=False)
        return float(result(measure.get_results()))

    return score


def sod_hce(pred: Array, truth: Array) -> float:
    cv2 = pytest.importorskip("cv2")
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) >= (4, 13):
        pytest.skip("OpenCV 4.13 changed approxPolyDP: HCE is no longer the published one there")
    library = pytest.importorskip("py_sod_metrics")
    binary = (np.rint(pred * 255) > 128).astype(np.float64)
    return float(library.HumanCorrectionEffortMeasure().cal_hce(binary, truth))


def skimage_skeleton(_: Array, truth: Array) -> float:
    return checksum(pytest.importorskip("skimage.morphology").skeletonize(truth))


def checksum(mask: Mask) -> float:
    return float(zlib.crc32(np.packbits(mask).tobytes()))


# Metric -> (whether it takes a soft prediction, ours, what defines it).
REFERENCES: dict[str, tuple[bool, Score, Score]] = {
    "iou": (False, metrics.iou, medpy("jc")),
    "dice": (False, metrics.dice, medpy("dc")),
    "mba": (False, metrics.mba, opencv_mba),
    "boundary_iou": (False, metrics.boundary_iou, coco_boundary_iou),
    "boundary_f": (False, metrics.boundary_f, opencv_boundary_f),
    "hausdorff95": (False, metrics.hausdorff95, medpy("hd95")),
    "max_f": (True, dis_metrics.max_f, sod("Fmeasure", lambda r: r["fm"]["curve"].max())),
    "mean_f": (
        True,
        lambda p, t: float(dis_metrics.f_curve(p, t).mean()),
        sod("Fmeasure", lambda r: r["fm"]["curve"].mean()),
    ),
    "weighted_f": (True, dis_metrics.weighted_f, sod("WeightedFmeasure", lambda r: r["wfm"])),
    "mae": (True, dis_metrics.mae, sod("MAE", lambda r: r["mae"])),
    "s_measure": (True, dis_metrics.s_measure, sod("Smeasure", lambda r: r["sm"])),
    "e_measure": (True, dis_metrics.e_measure, sod("Emeasure", lambda r: r["em"]["curve"].mean())),
    "max_e": (
        True,
        lambda p, t: float(dis_metrics.e_curve(p, t).max()),
        sod("Emeasure", lambda r: r["em"]["curve"].max()),
    ),
    "hce": (True, dis_metrics.hce, sod_hce),
    "skeleton": (False, lambda _, t: checksum(contours.skeleton(t)), skimage_skeleton),
}


def compare(name: str, score: Score, case: str) -> float:
    pred, truth = CASES[case]
    return score(soften(pred) if REFERENCES[name][0] else pred, truth)


@pytest.mark.parametrize("name", REFERENCES)
def test_recorded_reference(name: str) -> None:
    recorded = json.loads((DATA / "metrics_reference.json").read_text())["scores"][name]
    assert set(recorded) == set(CASES)
    for case, expected in recorded.items():
        assert compare(name, REFERENCES[name][1], case) == pytest.approx(expected, rel=1e-9, abs=1e-9), case


@pytest.mark.parametrize("name", REFERENCES)
def test_live_reference(name: str) -> None:
    for case in ("disks", "spokes", "noise", "CCP_0016"):
        expected = compare(name, REFERENCES[name][2], case)
        assert compare(name, REFERENCES[name][1], case) == pytest.approx(expected, rel=1e-9, abs=1e-9), case


@pytest.mark.parametrize("name", PHOTOS)
def test_published_figures(name: str) -> None:
    coarse, truth = photo(name)
    assert metrics.iou(coarse, truth) == pytest.approx(PARITY["metrics"][name]["iou"], abs=1e-9)
    assert metrics.mba(coarse, truth) == pytest.approx(PARITY["metrics"][name]["mba"], abs=1e-9)


def test_ellipse_is_opencvs() -> None:
    recorded = json.loads((DATA / "metrics_reference.json").read_text())["ellipse_half_widths"]
    for radius, half_widths in enumerate(recorded, start=1):
        assert metrics._opencv_ellipse(radius).tolist() == half_widths


@pytest.mark.parametrize("seed", range(12))
def test_borders_and_corners_are_opencvs(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 4))
    mask = np.kron(rng.random((14, 11)) < rng.uniform(0.2, 0.9), np.ones((size, size))) > 0
    mask &= rng.random(mask.shape) < 0.97
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    width = mask.shape[1] + 2
    expected = [((line[:, 0, 1] + 1) * width + line[:, 0, 0] + 1).tolist() for line in found]
    ours = [border.tolist() for border in contours.borders(mask)]
    assert sorted(ours) == sorted(expected)
    if tuple(int(part) for part in cv2.__version__.split(".")[:2]) < (4, 13):
        for line in found:
            points = np.array(list(dict.fromkeys(map(tuple, line[:, 0].tolist()))))
            approximated = cv2.approxPolyDP(points[:, None].astype(np.int32), 2, False)
            assert contours.corners(points[:, ::-1], 2) == len(approximated)


def record() -> None:
    import cv2

    ellipses = []
    for radius in range(1, 41):
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        ellipses.append([int(line.sum()) // 2 for line in element[radius:]])
    scores = {
        name: {case: compare(name, reference, case) for case in CASES} for name, (_, _, reference) in REFERENCES.items()
    }
    table = {"opencv": cv2.__version__, "ellipse_half_widths": ellipses, "scores": scores}
    # A line for each metric: short enough to read a difference.
    text = json.dumps(table).replace('"ellipse', '\n"ellipse').replace('"scores"', '\n"scores"')
    (DATA / "metrics_reference.json").write_text(text.replace("}, ", "},\n ") + "\n")


if __name__ == "__main__":
    record()
