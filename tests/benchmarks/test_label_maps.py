"""The measures of label maps, and which scenes judge which."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.common.street import VOID, MapFiles
from benchmarks.quality.fit_label_acceptance import scenes_of
from benchmarks.quality.label_maps import Scores, matched_ious, near_border, table

CAR, ROAD = 8, 3


def scene() -> np.ndarray:
    labels = np.full((40, 60), ROAD, np.uint8)
    labels[10:20, 5:15] = labels[10:20, 30:40] = CAR
    labels[35:] = VOID
    return labels


def test_a_map_that_is_the_truth_is_perfect() -> None:
    scores = Scores()
    scores.add(scene(), scene())
    assert np.nanmin(scores.ious) == scores.border_accuracy == scores.panoptic_quality == 100
    assert list(np.flatnonzero(~np.isnan(scores.ious))) == [ROAD, CAR]


def test_a_car_that_is_missed_and_one_that_is_half_found() -> None:
    found, scores = scene(), Scores()
    found[10:20, 5:15] = ROAD
    found[10:20, 34:40] = ROAD  # IoU 0.4: a false segment and a missed one
    scores.add(found, scene())
    assert scores.matched[CAR] == 0 and scores.segments[CAR] == 1.5
    assert scores.ious[CAR] == pytest.approx(100 * 40 / 200)
    road = 60 * 35 - 200
    assert scores.panoptic_quality == pytest.approx(100 * (0 + road / (road + 160)) / 2)


def test_what_is_void_counts_nowhere() -> None:
    found, scores = scene(), Scores()
    found[35:] = CAR
    scores.add(found, scene())
    assert scores.panoptic_quality == scores.border_accuracy == 100


def test_borders_reach_three_pixels_to_both_sides() -> None:
    labels = np.zeros((5, 20), np.uint8)
    labels[:, 10:] = 1
    assert list(np.flatnonzero(near_border(labels)[2])) == [7, 8, 9, 10, 11, 12]


def test_a_segment_matches_one_at_most() -> None:
    whole = np.zeros((4, 10), bool)
    whole[:, :6] = True
    parts = [whole & (np.arange(10) < 4), whole & (np.arange(10) >= 4)]
    assert matched_ious([whole], parts) == [pytest.approx(4 / 6)]


def test_the_table_names_the_class_that_loses_most() -> None:
    before, after = Scores(), Scores()
    worse = scene()
    worse[10:20, 5:7] = ROAD
    before.add(scene(), scene())
    after.add(worse, scene())
    after.seconds.append(1.0)
    assert "car -10.00" in table({"street-4": (before, after)})


def test_pictures_show_errors_in_red() -> None:
    from benchmarks.quality.label_maps import picture

    wrong = scene()
    wrong[0, 0] = CAR
    shown = picture(np.zeros((40, 60, 3), np.uint8), scene(), [scene(), wrong])
    assert isinstance(shown, Image.Image) and shown.size == (180, 40)
    assert np.argwhere(np.asarray(shown)[..., 0] == 255).tolist() == [[0, 120]]


def test_as_many_scenes_of_each_sequence_are_chosen() -> None:
    names = [
        f"street_{sequence}_{number:05}"
        for sequence, count in (("A1", 40), ("B", 9), ("C", 2))
        for number in range(count)
    ]
    chosen = scenes_of([MapFiles(name, Path(name), Path(name)) for name in names], 9)
    assert [files.sequence for files in chosen] == ["street_A1"] * 3 + ["street_B"] * 3 + ["street_C"] * 2
