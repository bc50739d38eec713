"""Refine one mask: two files in, one file out."""

from pathlib import Path

from PIL import Image

from segrefiner import Refiner

here = Path(__file__).parent
result = Refiner.from_pretrained()(here / "car.jpg", here / "car_coarse.png")
Image.fromarray(result.mask.astype("uint8") * 255).save("refined.png")
print(result.report)
