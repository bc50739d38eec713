"""Training data as it is published: folders of photos and masks. Each layout is one function that gives a `Source`."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..imaging.listing import SUFFIXES, list_pictures, same_names
from ..imaging.reading import check_fits, read_mask, read_photo, warn_of
from ..ledger import Entry
from .sources import Sample, Source, SourceWrapper, WithCoarse, validate


@dataclass(frozen=True)
class PhotoFiles:
    """The files of one photo.

    Attributes:
        name: Unique within its source.
        image: The photo.
        mask: The truth.
        coarse: A real coarse mask, or `None` where there is none.
        more_coarse: Further real coarse masks of the same photo.
    """

    name: str
    image: Path
    mask: Path
    coarse: Path | None
    more_coarse: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Files:
    """Photos and masks that are files of their own.

    Attributes:
        name: What messages call the source.
        photos: Files of each photo.
        objects: Whether samples are single objects of photos that show more than these.
    """

    name: str
    photos: tuple[PhotoFiles, ...]
    objects: bool = False

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, index: int) -> Sample:
        """One photo."""
        files = self.photos[index]
        coarse = None if files.coarse is None else read_mask(files.coarse)
        kind = "" if files.coarse is None else files.coarse.parent.name
        photo, mask = read_photo(files.image), read_mask(files.mask)
        if photo.pixels.shape[:2] == mask.shape:
            warn_of(check_fits(photo, mask, mask_source=files.mask))
        sample = Sample(files.name, photo.pixels, mask, coarse, kind)
        return validate(sample, str(files.mask), str(files.coarse))


def find_photos(folder: Path) -> list[PhotoFiles]:
    """The photos of a data folder, sorted by name. Raises `InputError` for another layout or a missing mask."""
    images, masks = folder / "images", folder / "masks"
    _need(folder, (images, masks), "images/, masks/ and optionally coarse*/")
    return _paired(images, masks, sorted(p for p in folder.glob("coarse*") if p.is_dir()))


def find_label_maps(folder: Path) -> list[PhotoFiles]:
    """The photos of a folder of `images/` and `labels/`, whose masks are label maps. Raises `InputError` like that."""
    images, labels = folder / "images", folder / "labels"
    _need(folder, (images, labels), "images/ and labels/")
    return _paired(images, labels)


def open_folder(folder: Path) -> Files:
    """A folder of one's own: `images/NAME.jpg`, `masks/NAME.png` and, where there is one, `coarse*/NAME.png`.

    Raises:
        InputError: Something is missing; the message says what.
    """
    return Files(str(folder), tuple(find_photos(folder)))


def left_out(source: Source) -> tuple[Entry, ...]:
    """What lies in the folders of a source's photos and masks, or in its annotations, and belongs to no sample."""
    while isinstance(source, SourceWrapper):
        source = source.source
    if not isinstance(source, Files):
        return tuple(getattr(source, "left_out", ()))
    used = {
        str(path)
        for photo in source.photos
        for path in (photo.image, photo.mask, photo.coarse, *photo.more_coarse)
        if path is not None
    }
    found: list[Entry] = []
    for folder in sorted({Path(path).parent for path in used}):
        listing = list_pictures(folder)
        found += listing.left_out
        found += [Entry(str(folder / path), "of no photo of this data set") for path in listing.pictures]
    return tuple(entry for entry in found if entry.name not in used)


def every_coarse(source: Source) -> Source:
    """Repeat each photo of a folder for each of its real coarse masks, so that training sees all of them.

    Photos with one coarse mask or none, and sources other than folders, stay as they are. Repetitions are named
    `NAME~FOLDER` by the folder of their coarse mask.
    """
    if not isinstance(source, Files):
        return source
    photos = []
    for photo in source.photos:
        photos.append(replace(photo, more_coarse=()))
        for coarse in photo.more_coarse:
            photos.append(replace(photo, name=f"{photo.name}~{coarse.parent.name}", coarse=coarse, more_coarse=()))
    return replace(source, photos=tuple(photos))


def open_dis(root: Path, split: str = "TR") -> Files:
    """DIS-5K (Qin et al., ECCV 2022): `DIS-TR/im/NAME.jpg` and `DIS-TR/gt/NAME.png`, and so for VD, TE1 to TE4.

    Raises:
        InputError: Something is missing; the message says what, and where the data set is to be had.
    """
    inner = next((p for p in (root, root / "DIS5K") if (p / f"DIS-{split}").is_dir()), root) / f"DIS-{split}"
    _need(root, (inner / "im", inner / "gt"), f"DIS-{split}/im and DIS-{split}/gt of DIS-5K", _DIS_PAGE)
    return Files(f"DIS-5K {split} in {root}", tuple(_paired(inner / "im", inner / "gt")))


def open_thinobject(root: Path, split: str = "train") -> Files:
    """ThinObject-5K (Liew et al., WACV 2021): `images/`, `masks/` and `list/train.txt`, a name on each line.

    Raises:
        InputError: Something is missing; the message says what, and where the data set is to be had.
    """
    listed = root / "list" / f"{split}.txt"
    parts = (root / "images", root / "masks", listed)
    _need(root, parts, f"images/, masks/ and list/{split}.txt of ThinObject-5K", _THIN_PAGE)
    names = {Path(line.strip()).stem for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()}
    return Files(f"ThinObject-5K {split} in {root}", tuple(_paired(parts[0], parts[1], only=names)))


def open_hrsod(root: Path, split: str = "train") -> Files:
    """HRSOD (Zeng et al., ICCV 2019) and sets like it: `HRSOD_train/NAME.jpg` and `HRSOD_train_mask/NAME.png`.

    Raises:
        InputError: Something is missing; the message says what, and where the data set is to be had.
    """
    parts = root / f"HRSOD_{split}", root / f"HRSOD_{split}_mask"
    _need(root, parts, f"HRSOD_{split}/ and HRSOD_{split}_mask/", _HRSOD_PAGE)
    return Files(f"HRSOD {split} in {root}", tuple(_paired(*parts)))


_DIS_PAGE = "https://github.com/xuebinqin/DIS"
_THIN_PAGE = "https://github.com/liewjunhao/thin-object-selection"
_HRSOD_PAGE = "https://github.com/yi94code/HRSOD"


def _need(root: Path, parts: Iterable[Path], layout: str, page: str | None = None) -> None:
    missing = [str(part.relative_to(root)) for part in parts if not part.exists()]
    if missing:
        where = f"; it is to be had at {page}" if page else ""
        raise InputError(f"{root} has no {' and no '.join(missing)}: expected {layout}{where}")


def _paired(
    images: Path, masks: Path, coarse_folders: Sequence[Path] = (), only: set[str] | None = None
) -> list[PhotoFiles]:
    """The photos of a folder with the masks of the same names, sorted; those of `only`, if given.

    Names may differ in case and in how characters are composed where one file alone is meant.
    """
    found = _by_stem(images, SUFFIXES, "photo")
    truths = _by_stem(masks, (".png",), "mask")
    meant = same_names(found if only is None else only, found)
    names = sorted(found) if only is None else sorted(meant.get(name, name) for name in only)
    mask_of = same_names(names, truths)
    absent = [name for name in names if name not in found]
    without = [name for name in names if name in found and name not in mask_of]
    for what, where, lost in (("photos", images, absent), ("masks", masks, without)):
        if lost:
            more = " …" if len(lost) > 10 else ""
            raise InputError(f"{where} lacks the {what} of {len(lost)} names: {', '.join(lost[:10])}{more}")
    if not names:
        raise InputError(f"{images} holds no photo: expected files that end in {', '.join(SUFFIXES)}")
    coarse = [_by_stem(folder, (".png",), "coarse mask") for folder in coarse_folders]
    coarse_of = [(index, same_names(names, index)) for index in coarse]
    result = []
    for name in names:
        there = [index[meant[name]] for index, meant in coarse_of if name in meant]
        result.append(PhotoFiles(name, found[name], truths[mask_of[name]], next(iter(there), None), tuple(there[1:])))
    return result


def _by_stem(folder: Path, suffixes: Collection[str], what: str) -> dict[str, Path]:
    """The files of a folder that end in one of the suffixes, by name. Raises `InputError` for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        if (other := found.setdefault(path.stem, path)) is not path:
            raise InputError(f"{folder} holds {other.name} and {path.name}: expected one {what} of each name")
    return found


def open_source(spec: str | Path, coarse: Path | None = None) -> Source:
    """Opens training data of whatever layout it has.

    Args:
        spec: A folder in the layout of DIS-5K, ThinObject-5K or HRSOD, a folder of one's own, a folder or an index of
            shards, or the annotations of COCO or LVIS as `FILE.json`, or `FILE.json@IMAGES` for photos elsewhere.
        coarse: Folder of coarse masks that were made beforehand.

    Raises:
        InputError: There is no such thing, or something of it is missing.

    >>> from segrefiner.data.layouts import open_source
    >>> source = open_source("my_photos")
    >>> sample = source.read(0)
    >>> len(source), sample.image.dtype, sample.mask.dtype
    (4, dtype('uint8'), dtype('bool'))
    """
    if coarse is not None and not coarse.is_dir():
        raise InputError(f"{coarse} is no folder of coarse masks: make one with `segrefiner data coarse`")
    source = _open(str(spec))
    return source if coarse is None else WithCoarse(source, coarse)


def _open(spec: str) -> Source:
    from .coco import open_coco
    from .shards import INDEX_NAME, is_index, open_shards

    file, _, images = spec.partition("@")
    path = Path(spec)
    if "://" in spec or (path.is_dir() and (path / INDEX_NAME).is_file()) or is_index(path):
        return open_shards(spec)
    if file.lower().endswith(".json"):
        return open_coco(Path(file), Path(images) if images else None)
    if not path.is_dir():
        raise InputError(f"{spec} is neither a folder nor a .json file of annotations: check the path")
    layouts: tuple[tuple[Path, Callable[[Path], Source]], ...] = (
        (path / "DIS-TR", open_dis),
        (path / "DIS5K", open_dis),
        (path / "HRSOD_train", open_hrsod),
        (path / "list" / "train.txt", open_thinobject),
    )
    return next((opened for mark, opened in layouts if mark.exists()), open_folder)(path)
