"""Finding cases in the layouts in which data sets are published.

Every function returns the cases that are complete, and a failure for each that is not: nothing is guessed, and
everything that is missing is listed.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..imaging.listing import HIDDEN, NO_PICTURE, list_pictures, same_names
from ..ledger import Entry
from .protocol import Case, Failure

DIS_SETS = ("DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")

Found = tuple[list[Case], list[Failure]]
Index = dict[str, list[Path]]


class _MissingError(Exception):
    """There is not exactly one file where one is needed; the text says which."""


def folder_cases(truth: Path, predicted: Path, coarse: Path | None = None, images: Path | None = None) -> Found:
    """Masks in folders, `truth/NAME.png` with `predicted/NAME.png`; folders may have folders in them.

    Names may differ in case and in how characters are composed where one file alone is meant. Links to nowhere, pipes,
    devices and folders that cannot be read are failures.

    Args:
        truth: Folder of true masks.
        predicted: Folder of the masks to be measured.
        coarse: Folder of the masks that they were refined from, if gain and harm are wanted.
        images: Folder of photos, for pictures in a report.

    Raises:
        InputError: One of them is no folder.
    """
    truths = _pictures(truth)
    places = {"predicted mask": predicted, "coarse mask": coarse, "photo": images}
    roles = {role: _named_like(truths, _pictures(folder)) if folder else None for role, folder in places.items()}
    needed = [role for role, index in roles.items() if index is not None and role != "photo"]
    names = sorted(set(truths).union(*(roles[role] or () for role in needed)))

    def make(name: str) -> Case:
        files = {role: _one(roles[role], name, role, places[role]) for role in needed}
        return Case(
            name,
            truth=_one(truths, name, "true mask", truth),
            predicted=files["predicted mask"],
            coarse=files.get("coarse mask"),
            image=_optional(roles["photo"], name),
        )

    found, failures = _complete(names, make)
    given = [folder for folder in (truth, predicted, coarse, images) if folder is not None]
    strange = [entry for entry in _left_out(given) if entry.reason not in _NO_MASKS]
    return found, [*failures, *(Failure(entry.name, entry.reason) for entry in strange)]


def folder_notes(*folders: Path | None) -> list[str]:
    """What else lies in the folders of `folder_cases` and is no mask: a line for each reason."""
    entries = [entry for entry in _left_out(folder for folder in folders if folder) if entry.reason in _NO_MASKS]
    names = {reason: [entry.name for entry in entries if entry.reason == reason] for reason in _NO_MASKS}
    return [f"Left out: {len(there)}, such as {there[0]} ({reason})." for reason, there in names.items() if there]


_NO_MASKS = (HIDDEN, NO_PICTURE)


def _left_out(folders: Iterable[Path]) -> list[Entry]:
    return [entry for folder in dict.fromkeys(folders) for entry in list_pictures(folder).left_out]


def big_cases(folder: Path, predicted: Path | None = None, coarse: Path | None = None) -> Found:
    """BIG (Cheng et al., CascadePSP, CVPR 2020): `NAME_gt.png`, `NAME_seg.png` and `NAME_im.jpg` in one folder.

    Args:
        folder: The folder of truths and photos.
        predicted: Folder of refined masks, `NAME.png`, `NAME_seg.png` or `NAME_refine.png`. Without it, the coarse
            masks are what is measured.
        coarse: Folder of the coarse masks `NAME_seg.png`, if not `folder`.

    Raises:
        InputError: One of them is no folder.
    """
    truths = _ending(folder, "_gt.png")
    coarses = _ending(coarse or folder, "_seg.png")
    photos = _ending(folder, "_im.jpg")
    refined = None if predicted is None else _merged(_ending(predicted, end) for end in _REFINED)
    names = sorted(truths.keys() | coarses.keys() | photos.keys() | (refined or {}).keys())

    def make(name: str) -> Case:
        rough = _one(coarses, name, f"coarse mask {name}_seg.png", coarse or folder)
        fine = rough if refined is None else _one(refined, name, "refined mask", predicted)
        true = _one(truths, name, f"true mask {name}_gt.png", folder)
        return Case(name, true, fine, None if refined is None else rough, _optional(photos, name))

    return _complete(names, make)


_REFINED = ("_refine.png", "_seg.png", ".png")


def dis_cases(root: Path, coarse: Path | None = None, predicted: Path | None = None, sets: Sequence[str] = ()) -> Found:
    """DIS5K (Qin et al., ECCV 2022): `SET/im/NAME.jpg` and `SET/gt/NAME.png`.

    Args:
        root: The folder of the sets.
        coarse: Coarse predictions, `SET/NAME.png` of one model, or `MODEL/SET/NAME.png` of several.
        predicted: Refined masks, laid out as the coarse ones. Without it, the coarse masks are what is measured.
        sets: Which sets, of `DIS_SETS`; by default all those of which `root` has a folder, and the model has one of
            coarse or refined masks.

    Raises:
        InputError: One of them is no folder, or there is no set in it.
    """
    given = [folder for folder in (coarse, predicted) if folder is not None]
    if not given:
        raise InputError("there are no masks to measure: give coarse predictions, refined masks, or both")
    there = [name for name in DIS_SETS if (_folder(root) / name / "gt").is_dir()]
    if not there:
        raise InputError(f"{str(root)!r} has none of the folders {', '.join(f'{name}/gt' for name in DIS_SETS)}")
    cases: list[Case] = []
    failures: list[Failure] = []
    for model in sorted({model for folder in given for model in _models(folder)}):
        for name in sets or [name for name in there if any((folder / model / name).is_dir() for folder in given)]:
            found = _dis_set(root, model, name, coarse, predicted)
            cases += found[0]
            failures += found[1]
    return cases, failures


def _models(folder: Path) -> list[str]:
    if any((_folder(folder) / name).is_dir() for name in DIS_SETS):
        return [""]
    models = sorted(path.parent.name for name in DIS_SETS for path in folder.glob(f"*/{name}") if path.is_dir())
    if not models:
        raise InputError(f"{str(folder)!r} has no folder {' or '.join(DIS_SETS)}, nor models with such folders")
    return list(dict.fromkeys(models))


def _dis_set(root: Path, model: str, name: str, coarse: Path | None, predicted: Path | None) -> Found:
    group = f"{model}/{name}" if model else name
    try:
        truths, photos = _ending(root / name / "gt", ".png"), _ending(root / name / "im", ".jpg", optional=True)
        masks = {
            role: (_ending(folder / model / name, ".png"), folder / model / name)
            for role, folder in (("coarse mask", coarse), ("refined mask", predicted))
            if folder is not None
        }
    except InputError as error:
        return [], [Failure(group, str(error))]

    def make(item: str) -> Case:
        true = _one(truths, item, f"true mask {item}.png", root / name / "gt")
        files = [_one(index, item, f"{role} {item}.png", folder) for role, (index, folder) in masks.items()]
        return Case(item, true, files[-1], files[0] if len(files) == 2 else None, _optional(photos, item), group)

    names = sorted(truths.keys() | {item for index, _ in masks.values() for item in index})
    found, failures = _complete(names, make)
    return found, [Failure(f"{group}/{failure.name}", failure.message) for failure in failures]


def _complete(names: Iterable[str], make: Callable[[str], Case]) -> Found:
    cases: list[Case] = []
    failures: list[Failure] = []
    for name in names:
        try:
            cases.append(make(name))
        except _MissingError as error:
            failures.append(Failure(name, str(error)))
    return cases, failures


def _one(index: Index | None, name: str, role: str, folder: Path | None) -> Path:
    paths = (index or {}).get(name, [])
    if len(paths) > 1:
        several = ", ".join(sorted(path.name for path in paths))
        raise _MissingError(f"there are several files for the {role}: {several}; remove all but one")
    if not paths:
        raise _MissingError(f"the {role} is missing in {str(folder)!r}")
    return paths[0]


def _optional(index: Index | None, name: str) -> Path | None:
    paths = (index or {}).get(name, [])
    return paths[0] if len(paths) == 1 else None


def _pictures(folder: Path) -> Index:
    """Pictures by their path in the folder, without the suffix."""
    index: Index = {}
    for path in list_pictures(_folder(folder)).pictures:
        index.setdefault(path.with_suffix("").as_posix(), []).append(folder / path)
    return index


def _named_like(truths: Index, index: Index) -> Index:
    """An index under the names of the truths, where these are meant."""
    names = {present: wanted for wanted, present in same_names(truths, index).items()}
    return {names.get(name, name): paths for name, paths in index.items()}


def _ending(folder: Path, end: str, *, optional: bool = False) -> Index:
    """Files whose names end so, by the part before it."""
    if optional and not folder.is_dir():
        return {}
    files = [path for path in sorted(_folder(folder).iterdir()) if path.name.endswith(end) and path.is_file()]
    return {path.name[: -len(end)]: [path] for path in files if path.name != end and not path.name.startswith(".")}


def _merged(indexes: Iterable[Index]) -> Index:
    """Several endings of one folder; a file counts for the first that fits."""
    merged: Index = {}
    seen: set[Path] = set()
    for index in indexes:
        for name, paths in index.items():
            merged.setdefault(name, []).extend(path for path in paths if path not in seen)
            seen.update(paths)
    return {name: paths for name, paths in merged.items() if paths}


def _folder(path: Path) -> Path:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{str(path)!r} {what}: expected a folder")
    return path
