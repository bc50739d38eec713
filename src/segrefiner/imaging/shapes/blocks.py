"""Small squares of a picture: what happens along contours is computed where they are, and nowhere else."""

import torch
from torch import Tensor

from ..ops import nonzero_pixels, row_bands

BLOCK = 24
"""Side of a block in pixels."""

BLOCKS_AT_ONCE = 60
"""Blocks that are computed together: few enough for the processor's cache."""


def cut_blocks(planes: Tensor, corners: Tensor, margin: int) -> Tensor:
    """Blocks with `margin` pixels around them; beyond the planes their border is repeated.

    Args:
        planes: `(C, H, W)`.
        corners: `(B, 2)` int64, (y, x) of the blocks.
        margin: In pixels.

    Returns:
        `(B, C, BLOCK + 2 * margin, BLOCK + 2 * margin)`.
    """
    height, width = planes.shape[-2:]
    offsets = torch.arange(-margin, BLOCK + margin, device=planes.device)
    rows = (corners[:, :1] + offsets).clamp_(0, height - 1)
    columns = (corners[:, 1:] + offsets).clamp_(0, width - 1)
    return planes[:, rows[:, :, None], columns[:, None]].transpose(0, 1)


def touched_blocks(plane: Tensor, margin: int = 0) -> Tensor:
    """Corners `(B, 2)` (y, x), in reading order, of the blocks of `(H, W)` bool that have a pixel set in or near them.

    Near is within `margin` pixels, which are no more than a block has.
    """
    height, width = plane.shape
    blocks = torch.zeros(-(-height // BLOCK), -(-width // BLOCK), dtype=torch.bool, device=plane.device)
    # A pixel is near its own block and those that these places around it lie in.
    around = torch.tensor([[-margin], [0], [margin]], device=plane.device)
    for band in row_bands(height, width):
        rows, columns = nonzero_pixels(plane[band])
        columns = (columns + around).clamp_(0, width - 1) // BLOCK
        for row in (rows + (around + band.start)).clamp_(0, height - 1) // BLOCK:
            blocks[row, columns] = True
    return blocks.nonzero() * BLOCK
