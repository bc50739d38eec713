"""Refine the list of SAM's automatic masks: area and bbox follow the mask, all else stays."""

from pathlib import Path

import numpy as np
from PIL import Image

from segrefiner import Refiner, refine_outputs

here = Path(__file__).parent
coarse = np.array(Image.open(here / "car_coarse.png")) > 0
rows, columns = np.flatnonzero(coarse.any(axis=1)), np.flatnonzero(coarse.any(axis=0))
# Stands in for SamAutomaticMaskGenerator(sam).generate(pixels), or SAM2AutomaticMaskGenerator's.
found = [
    {
        "segmentation": coarse,
        "area": int(coarse.sum()),
        "bbox": [int(columns[0]), int(rows[0]), int(np.ptp(columns)), int(np.ptp(rows))],
        "predicted_iou": 0.93,
        "stability_score": 0.97,
    }
]

refined = refine_outputs(Refiner.from_pretrained(), here / "car.jpg", found)
print(f"from {found[0]['bbox']}, {found[0]['area']} pixels, to {refined[0]['bbox']}, {refined[0]['area']} pixels")
