"""Laws of masks from label maps: classes and connected parts, small ones as often, photos shared."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from segrefiner.cli.main import main
from segrefiner.data.label_masks import LEAST_SHARE, choose_masks
from segrefiner.data.layouts import open_source
from segrefiner.data.sources import data_set_of

VOID = 9


def street() -> np.ndarray:
    """Labels `(120, 160)`: sky and road, three poles, void."""
    labels = np.zeros((120, 160), np.uint8)
    labels[70:] = 1
    for column in (20, 70, 130):
        labels[20:100, column : column + 2] = 2
    labels[:10, :30] = VOID
    labels[110, 5] = 4
    return labels


def choose(seed: int, count: int = 5, ignore: tuple[int, ...] = (VOID,)) -> list[np.ndarray]:
    return choose_masks(street(), count, np.random.default_rng(seed), ignore)


def test_masks_are_classes_or_their_connected_parts() -> None:
    seen: set[str] = set()
    for seed in range(10):
        masks = choose(seed)
        assert len(masks) == len({mask.tobytes() for mask in masks})
        for mask in masks:
            (label,) = np.unique(street()[mask])
            assert label != VOID and mask.mean() >= LEAST_SHARE
            whole = street() == label
            seen.add(f"{label} {'whole' if np.array_equal(mask, whole) else 'part'}")
    assert seen == {"0 whole", "1 whole", "2 whole", "2 part"}


def test_thin_labels_are_as_frequent_as_large_ones() -> None:
    first = [int(street()[choose(seed, count=1)[0]][0]) for seed in range(90)]
    assert 18 <= first.count(2) <= 42


def test_the_same_seed_chooses_the_same_and_few_labels_give_fewer() -> None:
    assert all(map(np.array_equal, choose(3), choose(3)))
    assert len(choose(0, count=50)) == 6  # Three classes and three poles.
    assert choose(0, ignore=(0, 1, 2, VOID)) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a_1", "b_2"):
        Image.fromarray(random.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(
            tmp_path / "data" / "images" / f"{name}.jpg"
        )
        Image.fromarray(street()).save(tmp_path / "data" / "labels" / f"{name}.png")
    return tmp_path / "data"


def make(folder: Path, target: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["data", "labels", str(folder), "-o", str(target), *options])
    return result.exit_code, result.output


def test_a_photo_serves_each_of_its_masks_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    options = ("--prefix", "street", "--ignore", str(VOID), "--per-photo", "3")
    code, said = make(folder, tmp_path / "made", *options)
    assert code == 0 and "6 masks written, 0 were there" in said
    source = open_source(tmp_path / "made")
    assert len(source) == 6
    assert {data_set_of(source.read(i).name) for i in range(6)} == {"street"}
    for path in (tmp_path / "made" / "images").iterdir():
        original = folder / "images" / f"{path.stem[7:-2]}.jpg"
        assert path.read_bytes() == original.read_bytes()
    (tmp_path / "made" / "masks" / "street_a_1_0.png").unlink()
    assert "1 masks written, 5 were there" in make(folder, tmp_path / "made", *options)[1]
    assert "choose another folder" in make(folder, tmp_path / "made", *options, "--seed", "2")[1]


def test_what_is_wrong_is_told(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(street()[:50]).save(folder / "labels" / "a_1.png")
    code, said = make(folder, tmp_path / "made", "--ignore", str(VOID))
    assert code == 3 and "160x50 but its photo is 160x120" in said
    code, said = make(folder, tmp_path / "other", *(v for n in (0, 1, 2, VOID) for v in ("--ignore", str(n))))
    assert code == 3 and "b_2.png shows nothing" in said
    for prefix in ("a_1", ""):
        code, said = make(folder, tmp_path / "third", "--prefix", prefix)
        assert code == 1 and "expected letters alone" in said and len(said.splitlines()) == 1
    (folder / "labels" / "a_1.png").unlink()
    code, said = make(folder, tmp_path / "third")
    assert code == 1 and "a_1" in said and len(said.splitlines()) == 1
    code, said = make(tmp_path, tmp_path / "third")
    assert code == 1 and "images/ and labels/" in said
