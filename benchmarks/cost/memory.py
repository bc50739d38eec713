"""Peak memory of `segrefiner refine` against megapixels, for an object in a photo and for one all over it.

    python -m benchmarks.cost.memory [--megapixels 1,4,25,100]
    python -m benchmarks.cost.memory --windowed --megapixels 100,400

Each cell is a process of its own, reading and writing of files included. With `--windowed`, of `segrefiner refine
--windowed` for an object of about 4 megapixels.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.common.scenes import scene
from benchmarks.common.tables import aligned

Image.MAX_IMAGE_PIXELS = None
PROGRAM = """
import sys
from segrefiner.cli.main import main
main(sys.argv[1:], standalone_mode=False)
# Not what `resource` says, which remembers the process before it started Python.
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def large_object(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photo with colours inverted in a lobed disc that nearly fills it, and that disc moved, as coarse mask."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]

    def disc(moved: float) -> np.ndarray:
        down, right = (y - height / 2) / height - moved, (x - width / 2) / width - moved
        return (down**2 + right**2) / 0.43**2 <= 1 + 0.1 * np.sin(12 * np.arctan2(down, right))

    inside = disc(0)
    image = image.copy()
    image[inside] = 255 - image[inside]
    return image, disc(0.005)


def peak(folder: Path, image: np.ndarray, mask: np.ndarray) -> float:
    """Of a process that refines these, in GiB."""
    Image.fromarray(image).save(folder / "photo.jpg", quality=92)
    Image.fromarray(mask).save(folder / "mask.png", compress_level=1)
    return peak_of(folder / "photo.jpg", folder / "mask.png", folder / "refined.png")


def peak_of(photo: Path, mask: Path, target: Path, *options: str) -> float:
    """Of a process that refines these files, in GiB."""
    arguments = [sys.executable, "-c", PROGRAM, "refine", str(photo), str(mask), "-o", str(target), *options]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024**2


def windowed(megapixels: float) -> list[str]:
    """A line of the table: peaks, and seconds, with the photo as JPEG and as TIFF in tiles."""
    import pyvips

    ground = scene(7, 1).image
    patch, disc = (pyvips.Image.new_from_array(a) for a in large_object(ground))
    width, height = round((megapixels * 4e6 / 3) ** 0.5), round((megapixels * 3e6 / 4) ** 0.5)
    across, down = width // patch.width + 1, height // patch.height + 1
    photo = pyvips.Image.new_from_array(ground).replicate(across, down).crop(0, 0, width, height)
    place = (width // 2, height // 3)
    line = [f"{megapixels:g}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pyvips.Image.black(width, height).insert(disc, *place).pngsave(str(folder / "mask.png"), compression=1)
        whole = photo.insert(patch, *place)
        whole.jpegsave(str(folder / "photo.jpg"), Q=92)
        whole.tiffsave(str(folder / "photo.tif"), tile=True, compression="jpeg", Q=92)
        for file in ("photo.jpg", "photo.tif"):
            started = time.perf_counter()
            gib = peak_of(folder / file, folder / "mask.png", folder / "refined.tif", "--windowed")
            line += [f"{gib:.2f}", f"{time.perf_counter() - started:.0f}"]
    return line


@click.command()
@click.option("--megapixels", default="1,4,25,100", show_default=True)
@click.option("--windowed", "in_windows", is_flag=True, help="Of `refine --windowed`.")
def main(megapixels: str, in_windows: bool) -> None:
    """Print a table."""
    if in_windows:
        lines = [["megapixels", "GiB, JPEG", "s", "GiB, TIFF", "s"]]
        print(aligned(lines + [windowed(float(size)) for size in megapixels.split(",")]))
        return
    lines = [["megapixels", "GiB, an object in it", "GiB, an object all over it"]]
    for size in map(float, megapixels.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            made = scene(size, 1)
            usual = peak(Path(folder), made.image, made.coarse[0])
            lines.append([f"{size:g}", f"{usual:.2f}", f"{peak(Path(folder), *large_object(made.image)):.2f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main()
