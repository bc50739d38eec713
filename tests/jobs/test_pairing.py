"""Which masks belong to which photos: by equal names, and by patterns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.jobs.folders import SIZE, disc, photos_and_masks, save
from segrefiner.errors import InputError
from segrefiner.jobs.folders import folder_job, semantic_job
from segrefiner.jobs.pairing import pair


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path, Path]:
    return photos_and_masks(tmp_path)


def test_by_default_a_mask_has_its_photo_s_path_with_any_suffix() -> None:
    images = [Path("a.jpg"), Path("sub/a.jpg"), Path("b.jpg")]
    masks = [Path("a.png"), Path("sub/a.tif"), Path("sub/b.png")]
    assert pair(images, masks) == {images[0]: [masks[0]], images[1]: [masks[1]], images[2]: []}


def test_a_pattern_says_what_masks_are_called() -> None:
    images = [Path("x/a.jpg"), Path("x/b[1].jpg")]
    masks = [Path(name) for name in ("x/a_0.png", "x/a_1.png", "x/ab_0.png", "x/b[1]_7.png", "x/b1_7.png")]
    found = pair(images, masks, "{parent}/{stem}_*.png")
    assert found == {images[0]: masks[:2], images[1]: [masks[3]]}
    assert pair([Path("a.jpg")], [Path("a.jpg.png")], "{parent}/{name}.png") == {Path("a.jpg"): [Path("a.jpg.png")]}


@pytest.mark.parametrize(
    "pattern", ["{what}.png", "{}", "{stem", "stem}", "{0}", "{stem.x}", "{stem[0]}", "{stem!x}", "{stem:9z}"]
)
def test_other_words_in_braces_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        pair([Path("a.jpg")], [Path("a.png")], pattern)


@pytest.mark.parametrize(
    "pattern", ["{stem:-}", "{stem:_a}", "{stem:--{name}}", "{parent:>9}", "{stem!r:-_a}", "{stem:-{}}"]
)
def test_endings_that_are_none_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"pattern .* expected .* or \{stem:-_suffix\}"):
        pair([Path("a_a.jpg")], [Path("a.png")], pattern)


@pytest.mark.parametrize(
    ("image", "pattern", "mask"),
    [
        ("ulm/x_leftImg8bit.png", "{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png", "ulm/x_gtFine_labelIds.png"),
        ("x_leftIMG8bit.png", "{stem:-_leftImg8bit}_gtFine_labelIds.png", "x_gtFine_labelIds.png"),
        ("x.rgb.png", "{name:-.rgb.png}.ids.png", "x.ids.png"),
        ("val_rgb/x.jpg", "{parent:-_rgb}_ids/{stem}.png", "val_ids/x.png"),
        ("a[1]_[x].jpg", "{stem:-_[x]}_[y].png", "a[1]_[y].png"),
        ("a_b_b.jpg", "{stem:-_b}_*.png", "a_b_m.png"),
        ("caf\u00e9_\u00e9.jpg", "{stem:-_\u00e9}.png", "caf\u00e9.png"),
    ],
)
def test_patterns_take_endings_off(image: str, pattern: str, mask: str) -> None:
    assert pair([Path(image)], [Path(mask), Path("other.png")], pattern) == {Path(image): [Path(mask)]}


def test_photos_without_the_ending_have_no_mask(tmp_path: Path) -> None:
    for name in ("ulm/a_leftImg8bit", "ulm/b"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    save(tmp_path / "masks" / "ulm" / "a_gtFine_labelIds.png", disc(9))
    folders = tmp_path / "images", tmp_path / "masks", tmp_path / "out"
    for job in (folder_job, semantic_job):
        made = job(*folders, pattern="{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png")
        assert [item.key for item in made.items] == ["ulm/a_leftImg8bit.png"]
        assert "ulm/b.png" in made.failures and "does not end in _leftImg8bit" in made.failures["ulm/b.png"]
        with pytest.raises(InputError, match=r"a_leftImg8bit.png and ulm/a_gtFine_labelIds.png .* give --pair"):
            job(*folders)
        with pytest.raises(InputError, match=r"patterns begin with \{parent\}/"):
            job(*folders, pattern="{stem:-_leftImg8bit}_gtFine_labelIds.png")
        with pytest.raises(InputError, match=r"does not end in _x; is the pattern right\?"):
            job(*folders, pattern="{stem:-_x}_gtFine_labelIds.png")


STRANGE = ["b[1]", "[ab]", "a*", "a?", "[", "]", "[]", "[!a]", "b[[]", "{stem}", "{", "a.b", "ä ö", "a\n", "a\\b"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("{parent}/{stem}.png", "x/{0}/{0}.png"),
        ("{parent}/{stem}_?.png", "x/{0}/{0}_7.png"),
        ("{parent}/{stem}_*", "x/{0}/{0}_7.png"),
        ("*/{name}.png", "y/{0}.jpg.png"),
        ("./masks//{name}.png", "masks/{0}.jpg.png"),
    ],
)
def test_names_match_themselves_alone(name: str, pattern: str, own: str) -> None:
    """Also those that hold what has a meaning in a pattern, in files as in folders."""
    image, mask = Path(f"x/{name}/{name}.jpg"), Path(own.format(name))
    others = [Path(own.format(other)) for other in ("a", "b", "b1", "ab", "ax", "1", *STRANGE) if other != name]
    assert pair([image], [*others, mask], pattern) == {image: [mask]}


def test_a_bracket_in_a_pattern_is_itself() -> None:
    masks = [Path("a[mask].png"), Path("am.png"), Path("aa.png")]
    assert pair([Path("a.jpg")], masks, "{stem}[mask].png") == {Path("a.jpg"): masks[:1]}
    assert pair([Path("a.jpg")], masks, "{stem}[*") == {Path("a.jpg"): masks[:1]}


def test_many_photos_are_paired_at_once() -> None:
    images = [Path(f"{index % 7}/{index}.jpg") for index in range(3000)]
    masks = [Path(f"{index % 7}/{index}_{part}.png") for index in range(3000) for part in range(3)]
    found = pair(images, masks, "{parent}/{stem}_*.png")
    assert found == {image: masks[3 * index : 3 * index + 3] for index, image in enumerate(images)}


def test_results_in_one_place_are_refused(data: tuple[Path, Path, Path]) -> None:
    images, masks, output = data
    for other in ("a.tif", "A.png", "Sub/a.png"):
        save(masks / other, disc(5))
        for job in (folder_job, semantic_job):
            with pytest.raises(InputError, match=r"both be written|label maps|another photo"):
                job(images, masks, output, pattern="*/*.*" if "/" in other else "{parent}/*.*")
        (masks / other).unlink()


@pytest.mark.parametrize("kind", [folder_job, semantic_job])
@pytest.mark.parametrize("place", ["photos", "masks"])
def test_photos_whose_masks_are_not_clear_fail_alone(place: str, kind: Any, data: tuple[Path, Path, Path]) -> None:
    images, masks, output = data
    clear = kind(images, masks, output).items
    save((images if place == "photos" else masks) / "a.tif", disc(5))
    job = kind(images, masks, output)
    unclear = {"photos": {"a.jpg", "a.tif"}, "masks": {"a.jpg"}}[place]
    assert set(job.failures) == unclear and [item.key for item in job.items] == [
        item.key for item in clear if item.key not in unclear
    ]
    for why in job.failures.values():
        assert "another photo" in why if place == "photos" else "a.tif" in why
    assert set(job.left_out) == {str(masks / name) for name in ("a.png", "a.tif") if (masks / name).exists()}


def test_folders_that_have_nothing_in_common_are_refused(data: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, masks, output = data
    with pytest.raises(InputError, match="pattern"):
        folder_job(images, masks, output, pattern="{stem}_mask.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture"):
        folder_job(images, tmp_path / "empty", output)
    with pytest.raises(InputError, match="no folder"):
        folder_job(tmp_path / "absent", masks, output)


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("A.jpg", "a.png", "A.jpg a.png"),
        ("a.JPG", "a.Png", "a.JPG a.Png"),
        ("Sub/a.jpg", "sub/A.PNG", "Sub/a.jpg sub/A.PNG"),
        ("caf\u00e9.jpg", "cafe\u0301.png", "caf\u00e9.jpg cafe\u0301.png"),
        ("CAFE\u0301.jpg", "caf\u00e9.png", "CAFE\u0301.jpg caf\u00e9.png"),
        ("a.jpg A.jpg", "a.png", "a.jpg a.png"),
        ("a.jpg A.jpg", "a.png A.png", "a.jpg a.png A.jpg A.png"),
        ("Ab.jpg aB.jpg", "ab.png", ""),
        ("ab.jpg", "Ab.png aB.png", ""),
        ("ab.jpg", "Ab.png ab.png", "ab.jpg ab.png"),
        ("a.jpg", "b.png", ""),
    ],
)
@pytest.mark.parametrize("pattern", [None, "{parent}/{stem}.png"])
def test_names_are_matched_where_one_alone_is_meant(
    images: str, masks: str, expected: str, pattern: str | None
) -> None:
    if pattern and expected == "" and "Ab.png" in masks:
        pytest.skip("a pattern may stand for several masks")
    found = pair([Path(name) for name in images.split()], [Path(name) for name in masks.split()], pattern)
    told = [str(path) for image, several in found.items() for path in (image, *several) if several]
    assert " ".join(told) == expected
