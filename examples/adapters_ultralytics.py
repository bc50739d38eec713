"""Refine the masks of ultralytics' Results: they hold their photo, and their masks get its size."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segrefiner import Refiner, refine_outputs

try:
    from ultralytics.engine.results import Results
except ImportError:
    print("This example needs: pip install ultralytics")
else:
    here = Path(__file__).parent
    # Stands in for YOLO("yolo11n-seg.pt")("car.jpg")[0].
    coarse = torch.from_numpy(np.array(Image.open(here / "car_coarse.png")) > 0)[None]
    found = Results(np.array(Image.open(here / "car.jpg"))[..., ::-1], path="car.jpg", names={2: "car"}, masks=coarse)

    refined = refine_outputs(Refiner.from_pretrained(), None, found)
    print(f"from {int(found.masks.data.sum())} to {int(refined.masks.data.sum())} pixels")
