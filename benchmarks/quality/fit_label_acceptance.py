"""Learns which changes of a label map to keep: the small network that `refinement/label_maps.py` asks.

    python -m benchmarks.quality.fit_label_acceptance STREET OUT [--scenes 30] [--model ...] [--seed 0]

STREET are training scenes: images/ and labels/, named SEQUENCE_NUMBER. Coarse maps are those of
`benchmarks.quality.trust`: from a quarter and an eighth of the resolution, with smooth errors, and exact ones. Each
label is refined without acceptance. Each sequence in turn is left out and tells what mIoU is gained at several degrees
of trust: scenes of one sequence are too much alike to judge each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.common.cases import chosen
from benchmarks.common.options import OUTPUT
from benchmarks.common.street import CLASSES, KINDS, VOID, Labels, MapFiles, find_maps, make_map
from benchmarks.quality.fit_acceptance import Examples, fit
from benchmarks.quality.trust import FOLDER
from segrefiner import Refiner
from segrefiner.refinement.label_changes import LabelChanges
from segrefiner.refinement.label_maps import for_scenes
from segrefiner.refinement.label_regions import Regions
from segrefiner.refinement.pipelines.acceptance_model import AcceptanceModel

PIXELS = 8000
"""Of a map, chosen by chance."""

_TRUSTS = 0.5, 0.55, 0.6, 0.65, 0.7


@dataclass(frozen=True)
class MeasuredMap:
    """A coarse map with what is measured of it.

    Attributes:
        sequence: Of the scene.
        kind: Of its errors.
        truth: `(H, W)`.
        coarse: `(H, W)`.
        changes: The pixels along its contours.
        features: `(n, F)` float32.
        other: `(n,)`, the label that each may take.
    """

    sequence: str
    kind: str
    truth: Labels
    coarse: Labels
    changes: LabelChanges
    features: NDArray[np.float32]
    other: Labels

    @classmethod
    def of(cls, refiner: Refiner, files: MapFiles, kind: str, seed: int) -> "MeasuredMap":
        """Refines a map's labels and measures its changes."""
        image, truth = files.read()
        coarse = make_map(kind, files.name, truth, seed)
        values = [int(value) for value in np.unique(coarse) if value != VOID]
        regions = Regions(coarse, coarse == VOID, values)
        changes = LabelChanges(image, regions, coarse == VOID)
        masks = ((image, coarse == value) for value in values)
        for value, result in zip(values, refiner.many(masks, trust=0.0), strict=True):
            changes.add(value, result.probability)
        other = regions.nearest[changes.rows, changes.columns]
        return cls(files.sequence, kind, truth, coarse, changes, changes.features(), other)

    def examples(self, random: np.random.Generator) -> Examples:
        """Some of its pixels whose truth is one of the two labels."""
        here = self.changes.rows, self.changes.columns
        right = self.truth[here] == self.other
        some = random.permutation(np.flatnonzero(right | (self.truth[here] == self.coarse[here])))[:PIXELS]
        return Examples(self.features[some], right[some], np.ones(len(some), np.float32))

    def refined(self, model: AcceptanceModel, trust: float) -> Labels:
        """The map with the changes that a model keeps."""
        with torch.inference_mode():
            kept = model(torch.from_numpy(self.features)).numpy() >= trust
        kept &= self.changes.proposed[self.changes.rows, self.changes.columns]
        result = self.coarse.copy()
        result[self.changes.rows[kept], self.changes.columns[kept]] = self.other[kept]
        return result


def scenes_of(maps: Sequence[MapFiles], count: int) -> list[MapFiles]:
    """So many scenes, the same number of each sequence, evenly spread."""
    sequences: dict[str, list[MapFiles]] = {}
    for files in maps:
        sequences.setdefault(files.sequence, []).append(files)
    return [files for own in sequences.values() for files in chosen(own, max(1, count // len(sequences)))]


def gains(judged: Sequence[tuple[MeasuredMap, AcceptanceModel]], trust: float) -> str:
    """By how much mIoU and the IoU of the class that gains least change, in points, kind by kind."""
    parts = []
    for kind in KINDS:
        counts = np.zeros((2, 2, len(CLASSES)))
        for one, model in ((one, model) for one, model in judged if one.kind == kind):
            for index, labels in enumerate((one.coarse, one.refined(model, trust))):
                for value in range(len(CLASSES)):
                    mask, truth = (labels == value) & (one.truth != VOID), one.truth == value
                    counts[index, :, value] += (mask & truth).sum(), (mask | truth).sum()
        before, after = 100 * counts[:, 0] / counts[:, 1].clip(1)
        parts.append(f"{kind} {np.mean(after - before):+.2f} ({np.min(after - before):+.2f})")
    return ", ".join(parts)


@click.command()
@click.argument("street", type=FOLDER)
@click.argument("out", type=OUTPUT)
@click.option("--scenes", default=30, show_default=True, help="How many, as many of each sequence.")
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
def main(street: Path, out: Path, scenes: int, model: str | None, seed: int) -> None:
    """Learn which changes of a label map to keep."""
    refiner, random = for_scenes(Refiner.from_pretrained(model)), np.random.default_rng(seed)
    there = scenes_of(find_maps(street), scenes)
    maps = [
        MeasuredMap.of(refiner, files, kind, seed) for files in track(there, description="scenes") for kind in KINDS
    ]
    examples = [one.examples(random) for one in maps]

    def learnt_without(sequence: str | None) -> AcceptanceModel:
        pairs = zip(maps, examples, strict=True)
        return fit(Examples.joined([some for one, some in pairs if one.sequence != sequence]), seed)

    sequences = sorted({one.sequence for one in maps})
    if len(sequences) > 1:
        models = {sequence: learnt_without(sequence) for sequence in sequences}
        for trust in _TRUSTS:
            print(f"trust {trust}: {gains([(one, models[one.sequence]) for one in maps], trust)}")
    else:
        print(f"all scenes are of {sequences[0]}: no other sequence can tell what is gained")
    learnt_without(None).save(out)


if __name__ == "__main__":
    main()
