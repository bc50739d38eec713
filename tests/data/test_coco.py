"""Training objects of COCO files whose photos have names that are none."""

import json
from pathlib import Path

import pytest
from PIL import Image

from segrefiner.data.coco import open_coco
from segrefiner.errors import InputError


@pytest.mark.parametrize("name", ["a" * 400 + ".jpg", "a/" * 3000 + "b.jpg", "../a.jpg", "missing.jpg"])
def test_a_name_that_no_photo_can_have_is_an_error_of_its_object(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg")
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    document = {
        "images": [{"id": i, "file_name": file, "width": 20, "height": 10} for i, file in enumerate(["a.jpg", name])],
        "annotations": [{"id": i, "image_id": i, "segmentation": square} for i in range(2)],
    }
    (tmp_path / "objects.json").write_text(json.dumps(document))
    objects = open_coco(tmp_path / "objects.json", tmp_path)
    assert objects.read(0).mask.sum() > 30
    with pytest.raises(InputError):
        objects.read(1)
