"""Refine one mask: two files in, one file out."""

from pathlib import Path

from segrefiner import Refiner
from segrefiner.imaging.files import write_png

here = Path(__file__).parent
result = Refiner.from_pretrained()(here / "car.jpg", here / "car_coarse.png")
write_png("refined.png", result.mask)
print(result.report)
