"""The README's picture shows what it says: the median, there where the mask is most wrong."""

import numpy as np
import pytest

showcase = pytest.importorskip("benchmarks.quality.showcase")


def test_the_window_lies_in_the_photo_around_most_wrong_pixels() -> None:
    wrong, about = np.zeros((2, 300, 200), bool)
    about[20:280, 30:170] = True
    wrong[25:35, 150:160] = wrong[270, 40] = True
    rows, columns = showcase._window(wrong, about)
    assert rows.stop - rows.start == columns.stop - columns.start == 130
    assert rows.start >= 0 and rows.stop <= 300 and columns.start >= 0 and columns.stop <= 200
    assert np.count_nonzero(wrong[rows, columns]) == 100


def test_a_line_covers_no_pixel_of_the_mask() -> None:
    photo, mask = np.full((showcase.PANEL, showcase.PANEL, 3), 200, np.uint8), np.zeros((showcase.PANEL,) * 2, bool)
    mask[150] = True  # one pixel thin
    panel = showcase._painted(photo, mask, (255, 0, 0))
    assert (panel[150] == 200).all()
    assert (panel[[148, 149, 151, 152]] == (255, 0, 0)).all()
    assert (panel[100] == 100).all()


def test_the_median_of_each_kind_is_marked(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys) -> None:
    image, truth = np.zeros((80, 80, 3), np.uint8), np.zeros((80, 80), bool)
    truth[20:60, 20:60] = True
    gains = {"a": 3.0, "b": 1.0, "c": 2.0}

    def shown(_: object, case: showcase.Case) -> showcase.RefinedCase:
        return showcase.RefinedCase(case, truth, (50.0, 50.0 + gains[case.name]), (0.0, 0.0))

    every = [showcase.Case(name, kind, image, truth, truth) for kind in showcase.TITLES for name in gains]
    monkeypatch.setattr(showcase, "_subjects", lambda *_: iter(every))
    monkeypatch.setattr(showcase, "_refined", shown)
    monkeypatch.setattr(showcase.Refiner, "from_pretrained", lambda: None)
    showcase.main([str(tmp_path), "-o", str(tmp_path / "picture.jpg")], standalone_mode=False)
    marked = [line.split()[1] for line in capsys.readouterr().out.splitlines() if "<- shown" in line]
    assert marked == ["c"] * len(showcase.TITLES)
    assert (tmp_path / "picture.jpg").stat().st_size > 1000
