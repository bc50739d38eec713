"""A job over many photos: killed several times against an unbroken one, and on Ray against this machine.

    python -m benchmarks.service.jobs DATA [--photos 500] [--kills 5] [--ray]

Photos of the data folder are taken again and again, shrunk and mirrored, with their real coarse masks, some with a file
that is damaged. The killed job is the same command started again until it is done; what counts is that its folder
holds the same files, byte by byte, and how much longer it took.
"""

import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import click
from PIL import Image, ImageOps


def make(data: Path, folder: Path, count: int, side: int) -> None:
    """Photos and masks in sub-folders of a hundred; every fiftieth mask is no picture."""
    names = sorted(path.stem for path in data.glob("coarse*/*.png"))
    for index, name in enumerate(islice(cycle(names), count)):
        place = f"{index // 100:02d}/{index:05d}_{name}"
        for kind, suffix, source in (
            ("images", ".jpg", next(data.glob(f"images/{name}.*"))),
            ("masks", ".png", next(data.glob(f"coarse*/{name}.png"))),
        ):
            target = folder / kind / f"{place}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(source) as picture:
                small = ImageOps.contain(picture.convert("RGB" if kind == "images" else "L"), (side, side), 0)
                (ImageOps.mirror(small) if index // len(names) % 2 else small).save(target)
            if kind == "masks" and index % 50 == 49:
                target.write_bytes(target.read_bytes()[:40])


def command(folder: Path, output: Path, *options: str) -> list[str]:
    program = "import sys; from segrefiner.cli.main import main; sys.argv[0] = 'segrefiner'; main()"
    places = [str(folder / "images"), str(folder / "masks"), "-o", str(output)]
    return [sys.executable, "-c", program, "folder", *places, *options]


def timed(arguments: list[str]) -> tuple[float, int]:
    started = time.perf_counter()
    status = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    return time.perf_counter() - started, status


def done(output: Path) -> int:
    manifest = output / ".segrefiner" / "manifest.jsonl"
    return manifest.read_bytes().count(b"\n") if manifest.exists() else 0


def killed(arguments: list[str], output: Path, count: int, kills: int) -> tuple[float, int, list[int]]:
    """Seconds, exit status of the last start, and how many photos were done at each kill."""
    random.seed(0)
    marks = sorted(random.sample(range(1, count), kills))
    started, at = time.perf_counter(), []
    for mark in marks:
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and done(output) < mark:
                time.sleep(0.01)
            process.kill()
        at.append(done(output))
    status = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    return time.perf_counter() - started, status, at


def contents(output: Path) -> dict[str, str]:
    files = (path for path in output.rglob("*") if path.is_file() and ".segrefiner" not in path.parts)
    return {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--photos", default=500, show_default=True)
@click.option("--side", default=320, show_default=True, help="Long side of the photos in pixels.")
@click.option("--kills", default=5, show_default=True)
@click.option("--ray", is_flag=True, help="The same job on a local Ray cluster, too.")
def main(data: Path, photos: int, side: int, kills: int, ray: bool) -> None:
    """Run the same job in several ways and compare the folders."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(data, folder, photos, side)
        whole, broken, cluster = folder / "whole", folder / "broken", folder / "cluster"
        seconds, status = timed(command(folder, whole))
        expected = contents(whole)
        print(
            f"unbroken: {seconds:.1f} s, {photos / seconds:.1f} photos/s, {len(expected)} files, exit status {status}"
        )
        again, status = timed(command(folder, whole))
        print(f"again: {again:.1f} s, exit status {status}, files equal: {contents(whole) == expected}")
        taken, status, at = killed(command(folder, broken), broken, photos, kills)
        equal = contents(broken) == expected
        print(f"killed {kills} times, at {at} photos: {taken:.1f} s, exit status {status}, files equal: {equal}")
        if ray:
            taken, status = timed(command(folder, cluster, "--engine", "ray"))
            print(f"on Ray: {taken:.1f} s, exit status {status}, files equal: {contents(cluster) == expected}")
        shutil.rmtree(folder / "images")


if __name__ == "__main__":
    main()
