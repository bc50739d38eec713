"""How much masks of short clips flicker, before and after they are refined.

    python -m benchmarks.quality.flicker DATA [--photos 8] [--frames 8] [--smooth 0.6]

DATA as for `quality/methods.py`. Each photo makes three clips whose truth is known in every frame, all with fresh
sensor noise in every frame:

- steady: the scene and its coarse mask stand still, so that nothing but the noise differs;
- jitter: the scene stands still, and every frame has a coarse mask of its own, the truth with a contour that wobbles;
- pan: so too, in a window that moves over the photo by a few pixels a frame.

The steady clip's coarse mask is the photo's own where there is one. Flicker is `flicker.flicker`, in pixels
that the contour jumps per frame; in a pan, masks are compared where they show the same place, as the motion is known.
Printed are means over photos, and over their frames.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy import ndimage

from benchmarks.common.cases import chosen
from benchmarks.common.coarse_kinds import Mask, Photo, extent, scale
from segrefiner import Refiner
from segrefiner.data.layouts import PhotoFiles, find_photos
from segrefiner.errors import InputError
from segrefiner.evaluation.mask_checks import binary_mask
from segrefiner.evaluation.metrics import iou
from segrefiner.imaging.clips import still
from segrefiner.imaging.reading import check_same_size, read_image, read_mask
from segrefiner.refinement.video import refine_video

NOISE = 4.0
"""Standard deviation of the sensor's noise, of 0-255."""
STEP = 2
"""By how many pixels a pan moves per frame."""
WOBBLE = 0.5
"""Root mean square of a contour's displacement, as a share of what `coarse_kinds.scale` allows it."""
WAVE = 0.08
"""Over how much of the object's extent displacements are alike."""


@dataclass(frozen=True)
class Clip:
    """Frames with their masks; of a pan, every frame is a window that starts `step` pixels right of the last one."""

    pictures: Sequence[Photo]
    coarse: Sequence[Mask]
    truth: Sequence[Mask]
    step: int = 0


def noisy(image: Photo, random: np.random.Generator) -> Photo:
    """The photo as a sensor sees it once more."""
    seen = image + random.normal(0, NOISE, image.shape).astype(np.float32)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def wobbled(truth: Mask, random: np.random.Generator) -> Mask:
    """The truth with its contour displaced by smooth noise."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)
    field = ndimage.gaussian_filter(random.standard_normal(truth.shape).astype(np.float32), WAVE * extent(truth) / 2)
    return distance + field * (WOBBLE * scale(truth) / field.std()) > 0


def steady(image: Photo, coarse: Mask, truth: Mask, frames: int, random: np.random.Generator) -> Clip:
    """Nothing but the sensor's noise differs."""
    return Clip([noisy(image, random) for _ in range(frames)], [coarse] * frames, [truth] * frames)


def jitter(image: Photo, coarse: Mask, truth: Mask, frames: int, random: np.random.Generator) -> Clip:
    """A coarse mask of its own for every frame of a scene that stands still."""
    seen = [(noisy(image, random), wobbled(truth, random)) for _ in range(frames)]
    return Clip([picture for picture, _ in seen], [mask for _, mask in seen], [truth] * frames)


def pan(image: Photo, coarse: Mask, truth: Mask, frames: int, random: np.random.Generator) -> Clip:
    """The same, in a window that moves over the photo."""
    still = jitter(image, coarse, truth, frames, random)
    width = image.shape[1] - STEP * (frames - 1)
    windows = [np.s_[:, STEP * index : STEP * index + width] for index in range(frames)]
    pictures = [picture[window] for picture, window in zip(still.pictures, windows, strict=True)]
    coarse_masks, truths = (
        [mask[window] for mask, window in zip(masks, windows, strict=True)] for masks in (still.coarse, still.truth)
    )
    return Clip(pictures, coarse_masks, truths, STEP)


CLIPS: dict[str, Callable[[Photo, Mask, Mask, int, np.random.Generator], Clip]] = {
    "steady": steady,
    "jitter": jitter,
    "pan": pan,
}


def scores(clip: Clip, masks: Sequence[Mask]) -> tuple[float, float]:
    """Flicker where consecutive frames show the same place, and the mean IoU with the truth, of masks of a clip."""
    # What all frames show, at its place in each of them.
    width = masks[0].shape[1] - clip.step * (len(masks) - 1)
    starts = [clip.step * index for index in reversed(range(len(masks)))]
    common = [np.s_[:, start : start + width] for start in starts]
    placed = [mask[part] for mask, part in zip(masks, common, strict=True)]
    pictures = [picture[part] for picture, part in zip(clip.pictures, common, strict=True)]
    return flicker(placed, pictures), float(np.mean([iou(*pair) for pair in zip(masks, clip.truth, strict=True)]))


def measured(refiner: Refiner, clip: Clip, smooths: Sequence[float], seed: int) -> Iterator[tuple[float, float]]:
    """Scores of the coarse masks, then of the refined ones for each amount of smoothing."""
    yield scores(clip, clip.coarse)
    frames = [(str(index), *pair) for index, pair in enumerate(zip(clip.pictures, clip.coarse, strict=True))]
    for smooth in smooths:
        refined = refine_video(refiner, frames, smooth=smooth, seed=seed)
        yield scores(clip, [result.mask for _, result in refined])


def opened(photo: PhotoFiles, frames: int, seed: int) -> tuple[Photo, Mask, Mask] | None:
    """A photo, its coarse mask and its truth, or `None` where nothing of it can move or change."""
    image, truth = read_image(photo.image), read_mask(photo.mask)
    if truth.all() or not truth.any() or image.shape[1] <= 2 * STEP * frames:
        return None
    random = np.random.default_rng([seed, zlib.crc32(photo.name.encode())])
    return image, wobbled(truth, random) if photo.coarse is None else read_mask(photo.coarse), truth


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--photos", default=8, show_default=True, help="How many, evenly spread; 0 for all.")
@click.option("--frames", type=click.IntRange(min=2), default=8, show_default=True, help="Of each clip.")
@click.option("--smooth", type=click.FloatRange(0, 1, max_open=True), default=0.6, show_default=True)
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
def main(data: Path, photos: int, frames: int, smooth: float, model: str | None, seed: int) -> None:
    """Refine clips made of DATA's photos, and measure how much their masks flicker."""
    refiner = Refiner.from_pretrained(model)
    smooths = (0.0, smooth)
    rows: dict[str, list[list[tuple[float, float]]]] = {kind: [] for kind in CLIPS}
    for photo in track(chosen(find_photos(data), photos), "refining", console=Console(stderr=True)):
        given = opened(photo, frames, seed)
        if given is None:
            continue
        for kind, make in CLIPS.items():
            random = np.random.default_rng([seed, zlib.crc32(f"{photo.name}/{kind}".encode())])
            rows[kind].append(list(measured(refiner, make(*given, frames, random), smooths, seed)))
    names = ("coarse", *(f"refined, smooth {amount:g}" for amount in smooths))
    print(f"{len(rows['pan'])} photos of {data}, {frames} frames, model {refiner.name}, {refiner.steps} steps\n")
    print("| clip | masks | flicker, px | IoU, % |\n| --- | --- | --: | --: |")
    for kind, values in rows.items():
        for name, (jumps, overlap) in zip(names, np.mean(values, axis=0) if values else (), strict=bool(values)):
            print(f"| {kind} | {name} | {jumps:.3f} | {100 * overlap:.2f} |")


def flicker(masks: Iterable[NDArray[np.bool_]], frames: Iterable[NDArray[np.uint8]]) -> float:
    """How much masks change where the photo does not: by how many pixels their contours jump from frame to frame.

    With the masks `M_t`, their contours `C_t` (pixels of the mask beside one that is not in it) and the pixels `S_t`
    that are `still` between the frames t-1 and t:

        sum over t of |{p in S_t: M_t(p) ≠ M_t-1(p)}|  /  sum over t of (|C_t ∩ S_t| + |C_t-1 ∩ S_t|) / 2

    A contour that goes back and forth by d pixels all along has a flicker of about d. The field has no one measure: the
    temporal stability of DAVIS (Perazzi et al., CVPR 2016) matches contours of consecutive frames by shape and counts
    motion and occlusion, too; the agreement with masks that optical flow has warped depends on a flow network and its
    errors. Where nothing moves, neither is needed, and every change is an error.

    Args:
        masks: `(H, W)` bool each.
        frames: Their photos, `(H, W, 3)` uint8.

    Returns:
        0 for masks that stay as they are where the photo does; infinity for changes without any contour there.

    Raises:
        InputError: There are more of one than of the other, or their sizes differ.
    """
    changed, length = 0, 0.0
    before: tuple[NDArray[np.bool_], NDArray[np.uint8]] | None = None
    for index, (mask, picture) in enumerate(zip_longest(masks, frames)):
        if mask is None or picture is None:
            raise InputError(f"flicker: the {'masks' if mask is None else 'frames'} end before number {index}")
        mask = binary_mask(mask, f"mask {index}")
        check_same_size(picture, mask, image_source=f"frame {index}", mask_source=f"mask {index}")
        if before is not None:
            check_same_size(before[1], mask, image_source=f"frame {index - 1}", mask_source=f"mask {index}")
            same = still(before[1], picture)
            changed += int(np.count_nonzero(same & (mask != before[0])))
            length += sum(int(np.count_nonzero(same & _inner_contour(one))) for one in (before[0], mask)) / 2
        before = mask, picture
    if not length:
        return math.inf if changed else 0.0
    return changed / length


def _inner_contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask beside one that is not, above, below, left or right."""
    padded = np.pad(mask, 1, mode="edge")
    whole = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~whole


if __name__ == "__main__":
    main()
