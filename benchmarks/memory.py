"""Peak memory of `segrefiner refine` against megapixels, for an object in a photo and for one all over it.

    python benchmarks/memory.py [--megapixels 1,4,25,100]

Each cell is a process of its own, reading and writing of files included.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from PIL import Image
from scenes import scene
from tables import aligned

Image.MAX_IMAGE_PIXELS = None
PROGRAM = """
import sys
from segrefiner.cli import main
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
    files = [str(folder / name) for name in ("photo.jpg", "mask.png", "refined.png")]
    arguments = [sys.executable, "-c", PROGRAM, "refine", files[0], files[1], "-o", files[2]]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024**2


@click.command()
@click.option("--megapixels", default="1,4,25,100", show_default=True)
def main(megapixels: str) -> None:
    """Print a table."""
    lines = [["megapixels", "GiB, an object in it", "GiB, an object all over it"]]
    for size in map(float, megapixels.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            made = scene(size, 1)
            usual = peak(Path(folder), made.image, made.coarse[0])
            lines.append([f"{size:g}", f"{usual:.2f}", f"{peak(Path(folder), *large_object(made.image)):.2f}"])
    print(aligned(lines))


if __name__ == "__main__":
    main()
