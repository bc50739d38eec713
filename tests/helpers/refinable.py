"""A folder with what the command `refine` takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from helpers.tiny import TINY
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save


def photo_mask_and_weights(folder: Path, photo: NDArray[Any] | None = None, name: str = "photo.png") -> Path:
    """Write a photo of noise, 80x60 pixels if none is given, `mask.png` and `tiny.safetensors`; give the folder."""
    if photo is None:
        photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / name)
    mask = np.zeros(photo.shape[:2], bool)
    mask[15:45, 20:60] = True
    Image.fromarray(mask).save(folder / "mask.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(DenoisingUNet(TINY), folder / "tiny.safetensors")
    return folder
