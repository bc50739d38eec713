"""Photos of any size with any number of objects, for measuring speed.

Smooth textures on every scale with a little sensor noise, and on them ellipses of another texture and colour, one in
each field of a grid. The coarse mask of an object is its ellipse moved and enlarged.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_TEXTURE_CELLS = (4, 16, 64, 256)


@dataclass(frozen=True)
class Scene:
    """A synthetic photo.

    Attributes:
        image: `(H, W, 3)` uint8, RGB.
        coarse: `(H, W)` bool of each object.
    """

    image: NDArray[np.uint8]
    coarse: list[NDArray[np.bool_]]


def scene(megapixels: float, objects: int, seed: int = 0) -> Scene:
    """A photo in the shape 4:3.

    Args:
        megapixels: Its size.
        objects: How many; they never touch, and each is about half as long as its field of the grid.
        seed: Of all draws.
    """
    rng = np.random.default_rng(seed)
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(height * 4 / 3)
    image, material = _texture(height, width, rng), _texture(height, width, rng)
    columns = math.ceil(math.sqrt(objects * 4 / 3))
    rows = math.ceil(objects / columns)
    field = np.array([height / rows, width / columns])
    coarse = []
    for i in range(objects):
        centre = (np.array(divmod(i, columns)) + rng.uniform(0.45, 0.55, 2)) * field
        axes = field.min() * rng.uniform((0.2, 0.12), (0.25, 0.2))
        angle, colour = rng.uniform(0, math.pi), rng.uniform(-70, 70, 3)
        true = _ellipse(height, width, centre, axes, angle)
        image[true] = material[true] + colour
        coarse.append(_ellipse(height, width, centre + 0.15 * axes * rng.uniform(-1, 1, 2), 1.1 * axes, angle))
    image += rng.normal(0, 2, (height, width, 1)).astype(np.float32)
    return Scene(np.clip(image, 0, 255).astype(np.uint8), coarse)


def _texture(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    # Brightness varies more than colour does, as in photos.
    planes = np.zeros((4, height, width), np.float32)
    for cells in _TEXTURE_CELLS:
        if cells > min(height, width) // 2:
            break
        strength = 45 * (_TEXTURE_CELLS[0] / cells) ** 0.5
        for plane in planes:
            grid = rng.normal(0, strength, (cells, cells)).astype(np.float32)
            plane += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return np.moveaxis(128 + planes[:1] + 0.3 * planes[1:], 0, -1)


def _ellipse(
    height: int, width: int, centre: NDArray[np.float64], axes: NDArray[np.float64], angle: float
) -> NDArray[np.bool_]:
    down = np.arange(height)[:, None] + 0.5 - centre[0]
    right = np.arange(width)[None, :] + 0.5 - centre[1]
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
