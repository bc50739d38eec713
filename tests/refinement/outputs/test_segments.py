"""Maps of segments, with a list of them: a contour between two is decided once, whatever holds the map."""

from typing import Any

import numpy as np
import pytest
import torch

from helpers.outputs import HEIGHT, WIDTH, Shrinks
from helpers.tiny import TINY, restless
from segrefiner import Refiner, refine_outputs
from segrefiner.errors import InputError, InputWarning
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels

PHOTO = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


class OnDevice(torch.Tensor):
    """A tensor of a device whose memory NumPy cannot read."""

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def cpu(self, **_: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


@pytest.fixture(scope="module")
def tiny() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless, name="tiny")


def segments(nothing: int, *ids: int) -> torch.Tensor:
    """Two segments before nothing."""
    found = torch.full((HEIGHT, WIDTH), nothing, dtype=torch.int32)
    found[5:45, 5:45], found[5:45, 55:95] = ids
    return found


def transformers_of(found: Any, *ids: int) -> dict[str, Any]:
    listed = [{"id": one, "label_id": 3, "was_fused": False, "score": 0.9} for one in ids]
    return {"segmentation": found, "segments_info": listed}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("nothing", "ids"), [(0, (1, 2)), (-1, (0, 1)), (0, (7, 3))])
def test_a_map_of_segments_is_refined_as_a_label_map(
    nothing: int, ids: tuple[int, int], dtype: torch.dtype, tiny: Refiner
) -> None:
    if dtype == torch.uint8 and nothing < 0:
        return
    found = segments(nothing, *ids).to(dtype)
    expected = refine_labels(tiny, PHOTO, found.to(torch.int64), seed=1).labels
    refined = refine_outputs(tiny, PHOTO, transformers_of(found, *ids), seed=1)["segmentation"]
    assert refined.dtype == dtype and type(refined) is torch.Tensor
    np.testing.assert_array_equal(refined.to(torch.int64), expected)
    assert not torch.equal(refined, found)


def test_maps_of_another_device_come_back_as_they_are(tiny: Refiner) -> None:
    found = segments(0, 1, 2)
    plain = refine_outputs(tiny, [PHOTO], [transformers_of(found, 1, 2)], seed=1)[0]["segmentation"]
    there = found.as_subclass(OnDevice)
    given = [transformers_of(there, 1, 2), {"panoptic_seg": (there, [{"id": 1, "area": 5}, {"id": 2}])}]
    one, other = refine_outputs(tiny, [PHOTO, PHOTO], given, seed=1)
    for refined in (one["segmentation"], other["panoptic_seg"][0]):
        assert type(refined) is OnDevice and torch.equal(refined.cpu(), plain)
    # An area that was none of the segment's stays.
    assert other["panoptic_seg"][1] == [{"id": 1, "area": 5}, {"id": 2}]


def test_segments_leave_no_gap_between_them() -> None:
    """Each by itself would give up the pixels at their contour, which no segment would then have."""
    found = torch.zeros(HEIGHT, WIDTH, dtype=torch.int32)
    found[:, 20:50], found[:, 50:90] = 1, 2
    refined = refine_outputs(Shrinks(), PHOTO, transformers_of(found, 1, 2))["segmentation"]
    assert ((refined[:, 49] == 1) & (refined[:, 50] == 2)).all()


def test_segments_that_are_not_listed_stay(tiny: Refiner) -> None:
    found = segments(0, 1, 2)
    refined = refine_outputs(tiny, PHOTO, transformers_of(found, 1), seed=1)["segmentation"]
    assert torch.equal(refined == 2, found == 2) and not torch.equal(refined == 1, found == 1)


def test_a_segment_of_which_nothing_is_left_is_told() -> None:
    found = segments(0, 1, 2)
    found[50:52, 50:52] = 5
    with pytest.warns(InputWarning, match="of segment 5 no pixel is left"):
        refined = refine_outputs(Shrinks(), PHOTO, transformers_of(found, 1, 2, 5))["segmentation"]
    assert not (refined == 5).any()


@pytest.mark.parametrize("listed", [[{"label_id": 1}], [{"id": None}], [{"id": "1"}], [{"id": 1.5}], [None], [1]])
def test_segments_without_an_id_are_told(listed: list[Any], tiny: Refiner) -> None:
    found = segments(0, 1, 2)
    for outputs in ({"segmentation": found, "segments_info": listed}, {"panoptic_seg": (found, listed)}):
        with pytest.raises(InputError, match=r"segment 0 of segments_info has the id .*: expected a whole number"):
            refine_outputs(tiny, PHOTO, outputs)
