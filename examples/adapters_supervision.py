"""Refine the masks of supervision's Detections: masks and boxes change, classes and scores stay."""

from pathlib import Path

import numpy as np
from PIL import Image

from segrefiner import Refiner, refine_outputs

try:
    import supervision as sv
except ImportError:
    print("This example needs: pip install supervision opencv-python-headless")
else:
    here = Path(__file__).parent
    # Stands in for sv.Detections.from_inference(...) or another of its kind.
    coarse = np.array(Image.open(here / "car_coarse.png"))[None] > 0
    found = sv.Detections(xyxy=sv.mask_to_xyxy(coarse), mask=coarse, class_id=np.array([2]))

    refined = refine_outputs(Refiner.from_pretrained(), here / "car.jpg", found)
    print(f"from {found.xyxy[0]}, {found.area[0]} pixels, to {refined.xyxy[0]}, {refined.area[0]} pixels")
