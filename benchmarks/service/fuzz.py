"""Damaged, mutated and made-up inputs for every reader: pictures, encodings, COCO files, manifests, options, forms.

    python -m benchmarks.service.fuzz [--minutes 10] [--seed 0] [--readers images,rle,…] [--save fuzz-faults]
    python -m benchmarks.service.fuzz --replay fuzz-faults/images-17.bin

A reader may give a value or one of the package's own errors, on one line, within two seconds of the processor for each
megapixel (of one at least). Everything else is a violation: it is printed, its input is saved, and the command ends
with 1. Each case runs in a process that can be killed, so that a crash is told like any other violation.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.common.tables import aligned
from benchmarks.service.fuzz_readers import PIXELS, READERS, SECONDS, case
from segrefiner.imaging.codecs import decoder_process
from segrefiner.imaging.codecs.decoder_process import Decoder, KilledError

_WALL = 60.0
"""By the clock, for what no limit of the processor bounds."""


@dataclass
class Figures:
    """What became of a reader's cases."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: float = 0.0

    def add(self, outcome: str, slowness: float, memory: float) -> None:
        """One more case."""
        self.counts["violations" if outcome not in ("read", "refused") else outcome] += 1
        self.slowest, self.memory = max(self.slowest, slowness), max(self.memory, memory)


def tried(process: Decoder, name: str, content: bytes, figures: Figures) -> str:
    """What came of one case; an empty string for what is allowed."""
    try:
        outcome, seconds, megapixels, memory = process.run(case, name, content)
    except KilledError:
        outcome, seconds, megapixels, memory = "killed: too much time or memory, or a crash", 0.0, 1.0, 0.0
    except Exception as error:
        outcome, seconds, megapixels, memory = f"{type(error).__name__}: {error}"[-600:], 0.0, 1.0, 0.0
    if seconds > SECONDS * megapixels:
        outcome = f"slow: {seconds:.1f} s for {megapixels:.1f} megapixels"
    figures.add(outcome, seconds / megapixels, memory)
    return "" if outcome in ("read", "refused") else outcome


def warm_up(process: Decoder, names: Iterable[str]) -> None:
    """Let the process import what readers need, which is nothing that an input costs."""
    for name in names:
        tried(process, name, READERS[name].make(random.Random(0)), Figures())


def table(figures: dict[str, Figures]) -> str:
    """A row for each reader."""
    rows = [["reader", "read", "refused", "violations", "s/megapixel", "MiB"]]
    for name, one in figures.items():
        counts = [str(one.counts[kind]) for kind in ("read", "refused", "violations")]
        rows.append([name, *counts, f"{one.slowest:.2f}", f"{one.memory:.0f}"])
    return aligned(rows)


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="In all.")
@click.option("--seed", default=0, show_default=True, help="Of the first case; each next one has the next.")
@click.option("--readers", default=",".join(READERS), show_default=True)
@click.option("--save", type=click.Path(path_type=Path), default=Path("fuzz-faults"), show_default=True,
              help="Folder for the inputs of violations.")  # fmt: skip
@click.option("--replay", type=click.Path(path_type=Path), help="Try a saved input again, and nothing else.")
def main(minutes: float, seed: int, readers: str, save: Path, replay: Path | None) -> None:
    """Give inputs to readers until the time is over; print a table, and every violation."""
    decoder_process._WALL_SECONDS, decoder_process._WALL_FACTOR = _WALL, 0.0
    process = Decoder(1, PIXELS)
    names = [replay.name.partition("-")[0]] if replay else readers.split(",")
    if unknown := set(names) - READERS.keys():
        raise click.BadParameter(f"there is no reader {min(unknown)}: expected some of {', '.join(READERS)}")
    figures = {name: Figures() for name in names}
    warm_up(process, names)
    if replay:
        click.echo(tried(process, names[0], replay.read_bytes(), figures[names[0]]) or "no violation")
    until = time.monotonic() + 60 * minutes
    while not replay and time.monotonic() < until:
        for name in names:
            content = READERS[name].make(random.Random(f"{name} {seed}"))
            if violation := tried(process, name, content, figures[name]):
                save.mkdir(parents=True, exist_ok=True)
                path = save / f"{name}-{seed}.bin"
                path.write_bytes(content)
                click.echo(f"{path}: {violation}")
        seed += 1
    process.close()
    click.echo(table(figures))
    sys.exit(1 if any(one.counts["violations"] for one in figures.values()) else 0)


if __name__ == "__main__":
    main()
