"""DAVIS (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017): J and F of objects in videos.

As the official evaluation of the semi-supervised task: the first and the last frame of a sequence do not count,
the objects are those of the first frame, pixels of the value 255 are background, an object's figures are means
over its frames, and the figures of the set are means over all objects of all sequences.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InputError, MaskError, reason
from ..imaging import label_files
from ..ledger import Entry
from .layouts import files_ending, lone_photos, strays
from .metrics import boundary_f, iou
from .protocol import Failure, Measurement, Scores, check_size

Labels: TypeAlias = npt.NDArray[np.int64]

VOID = 255
_BINS = 4


@dataclass(frozen=True)
class Sequence:
    """One video: folders of masks `00000.png`, `00001.png` and so on, and of photos of the same names."""

    name: str
    truth: Path
    predicted: Path
    coarse: Path | None = None
    images: Path | None = None


def davis_sequences(
    root: Path,
    predicted: Path,
    coarse: Path | None = None,
    *,
    split: str | None = None,
    resolution: str = "480p",
) -> tuple[list[Sequence], list[Failure]]:
    """Find sequences in DAVIS's layout, `Annotations/480p/SEQUENCE/00000.png`.

    Args:
        root: The folder of `Annotations`, `JPEGImages` and `ImageSets`.
        predicted: Results, `SEQUENCE/00000.png`.
        coarse: What they were refined from, laid out alike.
        split: Only the sequences that `ImageSets/2017/SPLIT.txt` lists; by default all in `Annotations`.
        resolution: Which folder of `Annotations`.

    Returns:
        The sequences, and a failure for each without truth, prediction or coarse masks.

    Raises:
        InputError: A folder or the list of the split is missing.
    """
    truths = root / "Annotations" / resolution
    for folder in (truths, predicted, coarse):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{str(folder)!r} is no folder: expected one folder for each sequence in it")
    if split:
        names = _listed(root / "ImageSets" / "2017" / f"{split}.txt")
    else:
        names = sorted({name for folder in (truths, predicted, coarse) if folder for name in _folders(folder)})
    sequences, failures = [], []
    for name in names:
        images = root / "JPEGImages" / resolution / name
        rough = None if coarse is None else coarse / name
        sequence = Sequence(name, truths / name, predicted / name, rough, images if images.is_dir() else None)
        needed = [folder for folder in (sequence.truth, sequence.predicted, rough) if folder is not None]
        missing = [str(folder) for folder in needed if not folder.is_dir()]
        if missing:
            failures.append(Failure(name, f"there is no folder {' nor '.join(missing)}"))
        else:
            sequences.append(sequence)
    return sequences, failures


def measure_sequences(sequences: Iterable[Sequence], *, single_object: bool = False) -> Iterator[Measurement | Failure]:
    """Measure each object of each sequence, one frame in memory at a time.

    Args:
        sequences: Which.
        single_object: Take everything that is not 0 for one object, as in DAVIS 2016.

    Yields:
        A failure for each frame that is left out, and a row for each object, named `SEQUENCE/INDEX`. Its picture
        is the frame that gained or lost most, as the object did on the whole; without coarse masks, the worst one.
    """
    for sequence in sequences:
        try:
            yield from _measured(sequence, single_object)
        except InputError as error:
            yield Failure(sequence.name, str(error))


def read_davis_labels(path: Path) -> Labels:
    """Read a label map: the indices of a palette file, or the values of a grey one.

    Returns:
        `(H, W)` int64.

    Raises:
        MaskError: The file cannot be read, or is neither.
    """
    return label_files.read_labels(path).labels.astype(np.int64)


@dataclass
class _Track:
    """J and F of one object, frame by frame."""

    j: list[float] = field(default_factory=list)
    f: list[float] = field(default_factory=list)

    def add(self, predicted: Labels, truth: Labels, label: int) -> None:
        ours, theirs = predicted == label, truth == label
        self.j.append(iou(ours, theirs))
        self.f.append(boundary_f(ours, theirs))

    def scores(self) -> Scores:
        values = {}
        for key, track in (("j", self.j), ("f", self.f)):
            values[key] = sum(track) / len(track)
            values[f"{key}_recall"] = sum(value > 0.5 for value in track) / len(track)
            values[f"{key}_decay"] = _decay(track)
        return Scores({"jf": (values["j"] + values["f"]) / 2, **values})


def _decay(track: list[float]) -> float:
    """Mean of the first quarter of the frames less that of the last; neighbouring quarters share a frame."""
    bounds = np.round(np.linspace(1, len(track), _BINS + 1) + 1e-10).astype(int) - 1
    first, last = track[bounds[0] : bounds[1] + 1], track[bounds[-2] : bounds[-1] + 1]
    return sum(first) / len(first) - sum(last) / len(last)


def _measured(sequence: Sequence, single_object: bool) -> Iterator[Measurement | Failure]:
    def place(folder: Path, frame: str) -> Path:
        return folder / files[folder].get(frame, f"{frame}.png")

    def read(folder: Path, frame: str) -> Labels:
        labels = read_davis_labels(place(folder, frame))
        return (labels != 0).astype(np.int64) if single_object else labels

    def read_truth(frame: str) -> Labels:
        truth = read(sequence.truth, frame)
        return np.where(truth == VOID, 0, truth)

    files = {folder: _frames(folder) for folder in (sequence.truth, sequence.coarse, sequence.predicted) if folder}
    frames = sorted(files[sequence.truth])
    if len(frames) < 3:
        raise InputError(
            f"{str(sequence.truth)!r} has {len(frames)} frames: expected 3 or more, as the ends do not count"
        )
    objects = int(read_truth(frames[0]).max())
    if not 0 < objects < VOID:
        raise InputError(
            f"the first frame {frames[0]} of {str(sequence.truth)!r} has {objects} objects, expected 1 to {VOID - 1}; "
            "masks of one object that hold 0 and 255 are for --single-object"
        )
    folders = [folder for folder in (sequence.coarse, sequence.predicted) if folder is not None]
    for frame in (frame for folder in folders for frame in sorted(files[folder]) if frame not in frames):
        yield Failure(f"{sequence.name}/{frame}", f"the true mask is missing in {str(sequence.truth)!r}")
    tracks = [[_Track() for _ in range(objects)] for _ in folders]
    used = []
    for frame in frames[1:-1]:
        try:
            truth = read_truth(frame)
            maps = [_checked(read(folder, frame), truth, place(folder, frame), objects) for folder in folders]
        except InputError as error:
            yield Failure(f"{sequence.name}/{frame}", str(error))
            continue
        used.append(frame)
        for track, labels in zip(tracks, maps, strict=True):
            for index in range(objects):
                track[index].add(labels, truth, index + 1)
    if used:
        for index in range(objects):
            label = None if single_object else index + 1
            yield _row(sequence, files, used, [track[index] for track in tracks], f"{sequence.name}/{index + 1}", label)


def _checked(labels: Labels, truth: Labels, path: Path, objects: int) -> Labels:
    check_size(labels, truth, path)
    if labels.max() > objects:
        raise MaskError(
            f"mask {str(path)!r} has the index {labels.max()}, but the sequence has {objects} objects; "
            "masks of one object that hold 0 and 255 are for --single-object"
        )
    return labels


def _row(
    sequence: Sequence,
    files: Mapping[Path, Mapping[str, str]],
    frames: list[str],
    tracks: list[_Track],
    name: str,
    label: int | None,
) -> Measurement:
    after = tracks[-1]
    before = tracks[0] if len(tracks) == 2 else None
    gains = np.array(after.j) - (np.array(before.j) if before else 1)
    frame = frames[int((gains if gains.mean() > 0 else -gains).argmax())]
    photos = files_ending(sequence.images, any_suffix=True).get(frame) if sequence.images else None
    used: dict[str, Path | None] = {"image": photos[0] if photos else None}
    for role, folder in (("truth", sequence.truth), ("coarse", sequence.coarse), ("predicted", sequence.predicted)):
        used[role] = folder / files[folder][frame] if folder else None
    paths = {role: None if path is None else str(path.absolute()) for role, path in used.items()}
    scores = None if before is None else before.scores()
    return Measurement(name, after.scores(), scores, paths=paths, label=label)


def _frames(folder: Path) -> dict[str, str]:
    """The files of a sequence's masks by frame. Raises `InputError` where a frame has several."""
    found = files_ending(folder, ".png")
    double = [paths for paths in found.values() if len(paths) > 1]
    if double:
        raise InputError(f"{str(folder)!r} has {' and '.join(path.name for path in double[0])}: expected one of them")
    return {frame: path.name for frame, (path,) in found.items()}


def sequences_left_out(sequences: Iterable[Sequence]) -> list[Entry]:
    """What lies in the folders of sequences and is no frame, and photos without a true mask."""
    entries: list[Entry] = []
    for sequence in sequences:
        for folder in filter(None, (sequence.truth, sequence.predicted, sequence.coarse)):
            entries += strays(folder, [files_ending(folder, ".png")])
        if sequence.images:
            photos, frames = files_ending(sequence.images, any_suffix=True), files_ending(sequence.truth, ".png")
            entries += strays(sequence.images, [photos])
            entries += lone_photos(photos, frames)
    return entries


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _listed(path: Path) -> list[str]:
    try:
        return list(dict.fromkeys(path.read_text(encoding="utf-8-sig").split()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list of sequences {str(path)!r} cannot be read ({reason(error)})") from error
