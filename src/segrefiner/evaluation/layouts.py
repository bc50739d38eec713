"""Finding cases in the layouts in which data sets are published.

Every function returns the cases that are complete, and a failure for each that is not: nothing is guessed, and
everything that is missing is listed. Names may differ in case and in how characters are composed where one file alone
is meant. What lies in the folders and has no part in the layout is what the functions `…_left_out` name.
"""

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from contextlib import suppress
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
    strange = [
        entry for folder in dict.fromkeys(given) for entry in list_pictures(folder).left_out if is_strange(entry)
    ]
    return found, [*failures, *(Failure(entry.name, entry.reason) for entry in strange)]


def folder_left_out(
    truth: Path, predicted: Path, coarse: Path | None = None, images: Path | None = None
) -> list[Entry]:
    """What lies in the folders of `folder_cases` and is no mask, and photos of which there is none."""
    folders = [folder for folder in (truth, predicted, coarse, images) if folder]
    listed = [entry for folder in dict.fromkeys(folders) for entry in list_pictures(folder).left_out]
    entries = [entry for entry in listed if not is_strange(entry)]
    if images and folders.count(images) == 1:
        truths = _pictures(truth)
        masks = set(truths).union(*(_named_like(truths, _pictures(folder)) for folder in (predicted, coarse) if folder))
        photos = _named_like(truths, _pictures(images))
        entries += lone_photos(photos, masks)
    return entries


def is_strange(entry: Entry) -> bool:
    """Whether what lies in a folder cannot be read at all, so that a mask may be missing for it."""
    return entry.reason not in (HIDDEN, NO_PICTURE, _NO_MASK, _NO_ROLE, _NO_SET)


_NO_MASK = "a photo without a mask"
_NO_ROLE = "its name is none of this layout"
_NO_SET = "a set without masks to measure"


def strays(folder: Path, known: Iterable[Index], without: Collection[Path] = ()) -> list[Entry]:
    """What lies in a folder, but in none of some folders in it, and is in none of its indexes of files by name."""
    if not folder.is_dir():
        return []
    listing = list_pictures(folder, without=without)
    used = {path for index in known for paths in index.values() for path in paths}
    others = [folder / path for path in listing.pictures if folder / path not in used]
    return [*listing.left_out, *(Entry(str(path), _NO_ROLE) for path in others)]


def lone_photos(photos: Index, masks: Container[str]) -> list[Entry]:
    """The photos whose names are none of masks."""
    return [Entry(str(path), _NO_MASK) for name, paths in photos.items() if name not in masks for path in paths]


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
    truths, coarses, photos, refined = _big_indexes(folder, predicted, coarse)
    names = sorted(truths.keys() | coarses.keys() | photos.keys() | (refined or {}).keys())

    def make(name: str) -> Case:
        rough = _one(coarses, name, f"coarse mask {name}_seg.png", coarse or folder)
        fine = rough if refined is None else _one(refined, name, "refined mask", predicted)
        true = _one(truths, name, f"true mask {name}_gt.png", folder)
        return Case(name, true, fine, None if refined is None else rough, _optional(photos, name))

    return _complete(names, make)


_REFINED = ("_refine.png", "_seg.png", ".png")


def _big_indexes(folder: Path, predicted: Path | None, coarse: Path | None) -> tuple[Index, Index, Index, Index | None]:
    truths = files_ending(folder, "_gt.png")
    coarses = _named_like(truths, files_ending(coarse or folder, "_seg.png"))
    photos = _named_like(truths, files_ending(folder, "_im", any_suffix=True))
    refined = None if predicted is None else _merged(files_ending(predicted, end) for end in _REFINED)
    return truths, coarses, photos, None if refined is None else _named_like(truths, refined)


def big_left_out(folder: Path, predicted: Path | None = None, coarse: Path | None = None) -> list[Entry]:
    """What lies in the folders of `big_cases` and is in no case."""
    truths, coarses, photos, refined = _big_indexes(folder, predicted, coarse)
    folders = {folder, *filter(None, (predicted, coarse))}
    known = [truths, coarses, photos, refined or {}]
    return [entry for one in sorted(folders) for entry in strays(one, known, folders - {one})]


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
        truths, photos, masks = _dis_indexes(root, model, name, coarse, predicted)
    except InputError as error:
        return [], [Failure(group, str(error))]

    def make(item: str) -> Case:
        true = _one(truths, item, f"true mask {item}.png", root / name / "gt")
        files = [_one(index, item, f"{role} {item}.png", folder) for role, (index, folder) in masks.items()]
        return Case(item, true, files[-1], files[0] if len(files) == 2 else None, _optional(photos, item), group)

    names = sorted(truths.keys() | {item for index, _ in masks.values() for item in index})
    found, failures = _complete(names, make)
    return found, [Failure(f"{group}/{failure.name}", failure.message) for failure in failures]


def _dis_indexes(
    root: Path, model: str, name: str, coarse: Path | None, predicted: Path | None
) -> tuple[Index, Index, dict[str, tuple[Index, Path]]]:
    """True masks and photos of a set, and by role the masks of a model and their folder."""
    truths = files_ending(root / name / "gt", ".png")
    photos = _named_like(truths, files_ending(root / name / "im", any_suffix=True, optional=True))
    folders = {"coarse mask": coarse, "refined mask": predicted}
    places = {role: folder / model / name for role, folder in folders.items() if folder is not None}
    return truths, photos, {role: (_named_like(truths, files_ending(at, ".png")), at) for role, at in places.items()}


def dis_left_out(
    root: Path, coarse: Path | None = None, predicted: Path | None = None, sets: Sequence[str] = ()
) -> list[Entry]:
    """What lies in the folders of `dis_cases` and is in no case."""
    given = [folder for folder in (coarse, predicted) if folder is not None]
    entries: list[Entry] = []
    measured = set()
    for model in sorted({model for folder in given for model in _models(folder)}):
        for name in sets or DIS_SETS:
            with suppress(InputError):
                truths, photos, masks = _dis_indexes(root, model, name, coarse, predicted)
                measured.add(name)
                entries += strays(root / name / "gt", [truths]) + strays(root / name / "im", [photos])
                entries += lone_photos(photos, truths)
                entries += [entry for index, folder in masks.values() for entry in strays(folder, [index])]
    idle = [] if sets else [name for name in DIS_SETS if (root / name / "gt").is_dir() and name not in measured]
    return list(dict.fromkeys([*entries, *(Entry(str(root / name), _NO_SET) for name in idle)]))


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


def files_ending(folder: Path, end: str = "", *, any_suffix: bool = False, optional: bool = False) -> Index:
    """Files of a folder whose names end so, in either case, by the part before; not those of folders in it.

    Args:
        folder: Where they are.
        end: With the suffix, unless any of a picture will do.
        any_suffix: Whether it will.
        optional: Whether the folder may be absent.
    """
    if optional and not folder.is_dir():
        return {}
    index: Index = {}
    for path in list_pictures(_folder(folder)).pictures:
        name = path.stem if any_suffix else path.name
        if path.parent == Path() and name.lower().endswith(end) and len(name) > len(end):
            index.setdefault(name[: len(name) - len(end)], []).append(folder / path)
    return index


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
