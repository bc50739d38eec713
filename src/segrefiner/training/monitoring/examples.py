"""Pictures of training examples: what the network is given, what it makes of it, and where that is wrong."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GridPicture = NDArray[np.uint8]

_COLUMNS = ("photo", "coarse mask", "mixed mask", "prediction", "truth")
_FALSE_COLOUR = (240, 80, 60)
_MISSED_COLOUR = (60, 130, 250)
_CAPTION = "t = {}: wrong pixels {} of the coarse mask, {} of the prediction; red is too much, blue is missing"
_SIDE = 256
_BAND = 22
_GAP = 6


def example_grid(
    image: Tensor, coarse: Tensor, mixed: Tensor, probability: Tensor, fine: Tensor, timesteps: Tensor
) -> GridPicture:
    """A row for each example of a batch: photo, coarse mask, mixed mask, prediction and truth.

    Masks are white on dark grey; what they have too much is red and what they miss is blue, pixel for pixel. The
    prediction's grey is its probability. Small patches are enlarged by a whole factor, so that pixels stay pixels.

    Args:
        image: `(B, 3, S, S)` float RGB, 0-255.
        coarse: `(B, 1, S, S)`, at least 0.5 where the object is; bool or float.
        mixed: `(B, 1, S, S)`, likewise.
        probability: `(B, 1, S, S)` float in [0, 1], after the sigmoid.
        fine: `(B, 1, S, S)`, the truth, like the coarse mask.
        timesteps: `(B,)`, of each example.

    Returns:
        `(H, W, 3)` uint8, RGB; the same for the same tensors, on whatever device they are.

    Raises:
        ValueError: The shapes are not these, or there is no example.
    """
    count, side = len(image), image.shape[-1]
    masks = {"coarse": coarse, "mixed": mixed, "probability": probability, "fine": fine}
    if not count or image.shape != (count, 3, side, side) or timesteps.shape != (count,):
        raise ValueError(
            f"image is {tuple(image.shape)} and timesteps are {tuple(timesteps.shape)}: "
            "expected (B, 3, S, S) and (B,), B at least 1"
        )
    for name, mask in masks.items():
        if mask.shape != (count, 1, side, side):
            raise ValueError(f"{name} is {tuple(mask.shape)}: expected {(count, 1, side, side)}, as the image is")
    times = max(1, _SIDE // side)
    photos = image.detach().float().round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    shares = {name: mask.detach()[:, 0].float().cpu().numpy() for name, mask in masks.items()}
    rows = [_joined([_band(name, side * times) for name in _COLUMNS])]
    for index, timestep in enumerate(timesteps.tolist()):
        truth = shares["fine"][index] >= 0.5
        panels = [photos[index]]
        panels += [_show(shares[name][index], truth) for name in ("coarse", "mixed", "probability", "fine")]
        wrong = [_wrong(shares[name][index], truth) for name in ("coarse", "probability")]
        rows.append(_band(_CAPTION.format(timestep, *wrong), rows[0].shape[1]))
        rows.append(_joined([np.kron(panel, np.ones((times, times, 1), np.uint8)) for panel in panels]))
    return np.concatenate(rows)


def _show(share: NDArray[np.float32], truth: NDArray[np.bool_]) -> GridPicture:
    """A mask in greys, `(S, S, 3)` uint8, its errors in colours."""
    # Neither black nor white, so that labels and errors stand out from both.
    grey = 30 + 200 * np.nan_to_num(share).clip(0, 1)
    canvas = np.repeat(grey[..., None], 3, axis=2)
    mask = share >= 0.5
    for wrong, colour in ((mask & ~truth, _FALSE_COLOUR), (truth & ~mask, _MISSED_COLOUR)):
        canvas[wrong] = colour
    return canvas.astype(np.uint8)


def _wrong(share: NDArray[np.float32], truth: NDArray[np.bool_]) -> str:
    return f"{100 * np.mean((share >= 0.5) != truth):.2f} %"


def _joined(panels: list[GridPicture]) -> GridPicture:
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(parts, axis=1)


def _band(text: str, width: int) -> GridPicture:
    picture = Image.new("RGB", (width, _BAND), "white")
    ImageDraw.Draw(picture).text((4, 3), text, fill="black", font=ImageFont.load_default(size=13))
    return np.asarray(picture)
