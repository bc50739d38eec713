"""Refine the masks of any segmentation network: arrays in, arrays out."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from segrefiner import Refiner

here = Path(__file__).parent
photo = np.asarray(Image.open(here / "person.jpg"))

# Stands in for your network: a low-resolution probability map, enlarged.
scores = gaussian_filter(np.asarray(Image.open(here / "person_coarse.png"), np.float32), 6)

refiner = Refiner.from_pretrained(device="cpu")
result = refiner(photo, scores, steps=3, seed=1)

uncertain = np.abs(result.probability - 0.5) < 0.4
print(f"{result.mask.mean():.1%} of the photo is the object, {uncertain.mean():.2%} of the pixels are uncertain")
