"""Learns what of a refinement to keep: the small network of `pipelines/acceptance_model.py`.

    python -m benchmarks.quality.fit_acceptance DATA OUT --examples FILE [--street DIR] [--objects DIR] [--photos 600]
        [--model ...] [--seed 0]

DATA are training photos, laid out as for `benchmarks.quality.trust`, whose kinds of coarse masks these are. Each
is refined without acceptance; of each object some hundred pixels that change are measured and compared with the truth.
They are kept in FILE, from which a run that was cut off goes on. A third of the photos and of the street scenes'
sequences tells how good it is: masks of one photo are too much alike to judge each other.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch.nn import functional as F

from benchmarks.common import subjects
from benchmarks.common.cases import chosen
from benchmarks.common.options import OUTPUT
from benchmarks.common.soft_kinds import Mask, Photo
from benchmarks.common.street import find_maps
from benchmarks.common.thin_kinds import held_back_cutouts
from benchmarks.quality.trust import DEFAULT_KINDS, FOLDER
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos
from segrefiner.refinement.pipelines.acceptance_model import AcceptanceModel
from segrefiner.refinement.pipelines.changes import FEATURES
from segrefiner.refinement.pipelines.coarse_to_fine import changed_objects
from segrefiner.refinement.pipelines.tasks import MaskTask

PIXELS = 600
"""Of an object, chosen by chance: its pixels are alike, its objects are not."""

_HELD_BACK = 3
_HIDDEN, _DROPOUT, _WEIGHT_DECAY = 32, 0.1, 0.01
_PASSES, _BATCH, _RATE, _NOISE = 5, 4096, 4e-3, 0.2
_LEAST_WEIGHT, _MOST_SHARE = 0.05, 0.3
_KIND_WEIGHTS = {"real": 2.5, "strong": 2.5, "thin": 1.5}
"""Masks that networks made and thin ones count for more than the many kinds that are drawn."""


@dataclass(frozen=True)
class Examples:
    """Changes with their truth.

    Attributes:
        features: `(n, F)` float32.
        right: `(n,)` bool, whether the truth has the pixel as the refined mask does.
        weights: `(n,)` float32: an object counts once, and more where the changes make more of it.
    """

    features: NDArray[np.float32]
    right: NDArray[np.bool_]
    weights: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence["Examples"]) -> "Examples":
        """All of several."""
        fields = ("features", "right", "weights")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def examples_of(
    refiner: Refiner, kind: str, image: Photo, coarse: Mask, truth: Mask, random: np.random.Generator
) -> Examples:
    """Changes of a mask's objects that its refinement would make, a few of each."""
    photo = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    task = MaskTask(photo, torch.from_numpy(np.ascontiguousarray(coarse)))
    parts = []
    for box, mask in changed_objects(refiner.backend, task, steps=refiner.steps):
        changes = list(mask)
        if not changes:
            continue
        features, rows, columns = (torch.cat([getattr(c, n) for c in changes]) for n in ("features", "rows", "columns"))
        right = box.crop(torch.from_numpy(truth)[None])[0][rows, columns] == mask.refined[rows, columns]
        some = random.permutation(len(rows))[:PIXELS]
        parts.append(weighted(kind, features[some].numpy(), right[some].numpy(), len(rows), mask.comparison.extent))
    return Examples.joined(parts) if parts else _none()


def weighted(
    kind: str, features: NDArray[np.float32], right: NDArray[np.bool_], changed: int, extent: float
) -> Examples:
    """Some pixels of an object, of which so many change."""
    weight = _KIND_WEIGHTS.get(kind, 1.0) * (_LEAST_WEIGHT + min(1.0, changed / extent**2 / _MOST_SHARE))
    return Examples(features, right, np.full(len(right), weight / len(right), np.float32))


def _none() -> Examples:
    return Examples(np.zeros((0, len(FEATURES)), np.float32), np.zeros(0, bool), np.zeros(0, np.float32))


def fit(examples: Examples, seed: int) -> AcceptanceModel:
    """Learns a model by logistic regression through one hidden layer after another."""
    torch.manual_seed(seed)
    values, right = torch.from_numpy(examples.features), torch.from_numpy(examples.right).float()
    weights = torch.from_numpy(examples.weights / examples.weights.mean())
    mean, deviation = values.mean(0), values.std(0) + 1e-6
    sizes = (values.shape[1], _HIDDEN, _HIDDEN, 1)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    parameters = [tensor for layer in layers for tensor in layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, _RATE, weight_decay=_WEIGHT_DECAY)
    steps = _PASSES * -(-len(values) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)

    def model() -> AcceptanceModel:
        return AcceptanceModel(mean, deviation, tuple((layer.weight, layer.bias) for layer in layers))

    for _ in range(_PASSES):
        for some in torch.randperm(len(values)).split(_BATCH):
            shaken = values[some] + _NOISE * deviation * torch.randn(len(some), len(deviation))
            logits = model().logits(shaken, dropout=_DROPOUT)
            losses = F.binary_cross_entropy_with_logits(logits, right[some], reduction="none")
            loss = (losses * weights[some]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return AcceptanceModel(mean, deviation, tuple((layer.weight.detach(), layer.bias.detach()) for layer in layers))


def is_held_back(source: str) -> bool:
    """Whether all masks from a photo or sequence are for telling how good the model is."""
    return int(hashlib.md5(source.encode()).hexdigest(), 16) % _HELD_BACK == 0


def quality(model: AcceptanceModel, examples: Examples) -> tuple[float, float, float]:
    """Share of changes judged rightly, of right ones among those kept, and of all that are kept."""
    with torch.inference_mode():
        kept = (model(torch.from_numpy(examples.features)) >= 0.5).numpy()
    weights, right = examples.weights, examples.right
    return (
        float(np.average(kept == right, weights=weights)),
        float(np.average(right[kept], weights=weights[kept])) if kept.any() else float("nan"),
        float(np.average(kept, weights=weights)),
    )


def _subjects(
    data: Path, street: Path | None, objects: Path | None, photos: int, seed: int
) -> Iterator[subjects.Subject]:
    """Training photos with their kinds, thin structures and single objects; of what is held back, none."""
    there, maps = find_photos(data), find_maps(street) if street else []
    held = set(held_back_cutouts(objects)) if objects else set()
    cutouts = tuple(path for path in sorted(objects.iterdir()) if path not in held) if objects else ()
    yield from subjects.of_photos(chosen(there, photos), DEFAULT_KINDS, seed)
    yield from subjects.of_thin_structures(there, cutouts, DEFAULT_KINDS, photos // 2, seed)
    yield from subjects.of_instances(there, chosen(maps, 40), cutouts, DEFAULT_KINDS, photos // 2, seed)


def collect(refiner: Refiner, chosen_ones: Sequence[subjects.Subject], file: Path) -> dict[str, Examples]:
    """Examples of each subject, by its name; those that the file has are taken from it."""
    found: dict[str, Examples] = {}
    if file.is_file():
        with np.load(file) as stored:
            for name in stored["names"].tolist():
                found[name] = Examples(*(stored[f"{name}:{part}"] for part in ("features", "right", "weights")))
    random = np.random.default_rng(0)
    for index, subject in enumerate(track(chosen_ones, description="subjects")):
        if subject.name in found:
            continue
        image, truth = subject.read()
        made = {kind: subject.coarse(kind, image, truth) for kind in subject.kinds}
        usable = {kind: coarse for kind, coarse in made.items() if coarse is not None and not_trivial(coarse)}
        parts = [examples_of(refiner, kind, image, coarse, truth, random) for kind, coarse in usable.items()]
        found[subject.name] = Examples.joined(parts) if parts else _none()
        if index % 20 == 19 or index == len(chosen_ones) - 1:
            _store(found, file)
    return found


def not_trivial(mask: Mask) -> bool:
    """Whether there is an object and something beside it."""
    return bool(mask.any() and not mask.all())


def _store(found: dict[str, Examples], file: Path) -> None:
    arrays = {"names": np.array(list(found))}
    for name, one in found.items():
        arrays |= {f"{name}:features": one.features, f"{name}:right": one.right, f"{name}:weights": one.weights}
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


@click.command()
@click.argument("data", type=FOLDER)
@click.argument("out", type=OUTPUT)
@click.option("--examples", type=OUTPUT, required=True, help="What was measured; a run goes on from here (.npz).")
@click.option("--street", type=FOLDER, help="Street scenes: images/ and labels/; without it, none.")
@click.option("--objects", type=FOLDER, help="Cut-outs; those that are held back are left out.")
@click.option("--photos", default=600, show_default=True, help="How many, evenly spread.")
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
def main(
    data: Path,
    out: Path,
    examples: Path,
    street: Path | None,
    objects: Path | None,
    photos: int,
    model: str | None,
    seed: int,
) -> None:
    """Learn which changes of a refinement to keep."""
    refiner = Refiner.from_pretrained(model)
    chosen_ones = list(_subjects(data, street, objects, photos, seed))
    found = collect(refiner, chosen_ones, examples)
    parts = {held: [found[s.name] for s in chosen_ones if is_held_back(s.source) is held] for held in (False, True)}
    if not all(any(len(one.right) for one in part) for part in parts.values()):
        raise click.ClickException(f"{len(chosen_ones)} photos are too few: some must be left out, and some not")
    told, kept, share = quality(fit(Examples.joined(parts[False]), seed), Examples.joined(parts[True]))
    changes = sum(len(one.right) for one in itertools.chain(*parts.values()))
    print(
        f"{len(chosen_ones)} photos, {changes} changes; of a third of the photos and sequences, which was left out: "
        f"{100 * told:.1f} % judged rightly, {100 * share:.1f} % kept, of which {100 * kept:.1f} % are right"
    )
    fit(Examples.joined([*parts[False], *parts[True]]), seed).save(out)


if __name__ == "__main__":
    main()
