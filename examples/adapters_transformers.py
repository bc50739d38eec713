"""Refine what an image-segmentation pipeline of transformers found; labels and scores stay."""

from pathlib import Path

from PIL import Image

from segrefiner import Refiner, refine_outputs

here = Path(__file__).parent
# Stands in for pipeline("image-segmentation")("person.jpg").
found = [{"score": 0.97, "label": "person", "mask": Image.open(here / "person_coarse.png").convert("L")}]

refined = refine_outputs(Refiner.from_pretrained(), here / "person.jpg", found)
for before, after in zip(found, refined, strict=True):
    print(f"{after['label']}: from {before['mask'].histogram()[255]} to {after['mask'].histogram()[255]} pixels")
