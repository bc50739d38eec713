"""One object of a photo: what the network is shown of it, and where its answers are blended."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Generator, Tensor

from .diffusion import Uniform, ancestral, confidence, monotone, pixel_thresholds
from .geometry import Box, box_mean, contour, resize, square_around
from .unet import IMAGE_MEAN
from .views import PipelineConfig, Sampler, View, contour_tiles, needs_tiles, object_view


class Canvas:
    """The part of a photo around one object, and the probability of the object's mask there as refined so far.

    Attributes:
        area: All that any view of the object covers, in photo pixels.
        coarse: `(area.height, area.width)` bool.
        probability: `(area.height, area.width)` float.
        region: What tiles may cover, in photo pixels.
        view: Of the whole object.

    Args:
        image: `(3, H, W)` uint8, RGB, the photo.
        mask: `(H, W)` bool, the coarse mask.
        box: Of the object, in photo pixels.
        seed: Of the thresholds that decide when a pixel moves to fine.
        config: The pipeline's choices.
    """

    def __init__(self, image: Tensor, mask: Tensor, box: Box, seed: int, config: PipelineConfig) -> None:
        self.image, self.box, self.seed, self.config = image, box, seed, config
        self.photo = (mask.shape[0], mask.shape[1])
        self.view = object_view(box, *self.photo, config)
        self.region = box.grow(math.ceil(box.longest * (config.context - 1) / 2))
        # Tiles are never longer than the region, but are moved into the photo.
        reach = square_around(self.region, self.region.longest, *self.photo)
        self.area = self.view.box.union(self.region).union(reach).clip(*self.photo)
        self.coarse = self.area.crop(mask[None])[0]
        self.probability = self.coarse.float()
        self._total = self._weight = self.probability.new_empty(0)

    def tiles(self, scale: float) -> list[View]:
        """Tiles of this scale along the contour as it is now; none where they would show nothing new."""
        if not needs_tiles(self.region, scale, self.config):
            return []
        uncertain = contour(self.probability >= 0.5)
        if scale <= 1:
            # A window of one pixel of the level before on either side, and as much again for its blur.
            reach = max(2, round(2 * scale))
            sure = confidence(self.probability)
            doubt = box_mean(1 - sure[None], reach)[0]
            # Labels without any doubt are the coarse mask's own, which no view has decided.
            uncertain &= (doubt > self.config.undecided) | (sure == 1)
        # One transfer from a GPU for all tiles.
        uncertain = uncertain.cpu()
        return contour_tiles(uncertain, self.area, self.region, self.photo, scale, self.config)

    def shown(self, view: View) -> tuple[Tensor, Tensor]:
        """A view's photo `(3, S, S)` float, 0-255, and mask `(1, S, S)` float in {0, 1}."""
        photo = resize(view.box.crop(self.image, IMAGE_MEAN).float(), view.size, view.size)
        mask = resize(self._here(view.box).crop(self.probability[None]), view.size, view.size)
        return photo, (mask >= 0.5).float()

    def uniform(self, view: View) -> Uniform:
        """The numbers of a view's steps, a function of seed and place: whatever it is batched with."""
        size, device = view.size, self.image.device
        x0, y0 = round(view.box.x0 / view.scale), round(view.box.y0 / view.scale)
        if self.config.sampler is Sampler.MONOTONE:
            return monotone(pixel_thresholds(x0, y0, size, size, self.seed)[None].to(device))
        draws = ancestral((1, size, size), Generator().manual_seed(hash((self.seed, x0, y0, size)) % 2**63))
        return lambda: draws().to(device)

    def begin(self) -> None:
        """Before the views of one level are blended."""
        self._total, self._weight = torch.zeros_like(self.probability), torch.zeros_like(self.probability)

    def add(self, view: View, result: Tensor, shown: Tensor) -> None:
        """Blends the refined probability `(1, S, S)` of a view that showed the mask `(1, S, S)`."""
        inner = view.box.clip(*self.photo)
        place = self._here(inner)
        here = (slice(place.y0, place.y1), slice(place.x0, place.x1))
        cut = inner.shift(-view.box.x0, -view.box.y0)
        there = (slice(cut.y0, cut.y1), slice(cut.x0, cut.x1))
        ramp = max(1, round(self.config.overlap * view.scale / 2))
        weights = window(view.box, *self.photo, ramp).to(result.device)[there]
        new = resize(result, view.box.height, view.box.width)[0][there]
        if view.scale > 1:
            # A view that shows the mask shrunk says nothing of details it cannot show: where it agrees, they stay.
            changed = ((result >= 0.5).float() != shown).float()
            touched = resize(changed, view.box.height, view.box.width)[0][there] > 0
            new = torch.where(touched, new, self.probability[here])
        self._total[here] += weights * new
        self._weight[here] += weights

    def end(self) -> None:
        """After the views of one level are blended."""
        # Where the windows of the views sum to less than one, the rest is the mask as it was.
        rest = (1 - self._weight).clamp(min=0)
        self.probability = (self._total + rest * self.probability) / self._weight.clamp(min=1)
        self.probability.clamp_(0, 1)
        self._total = self._weight = self.probability.new_empty(0)

    def own(self, before: Sequence["Canvas"], after: Sequence["Canvas"]) -> Tensor:
        """Pixels of the area, bool, whose nearest object is this one.

        Args:
            before: The objects before this one in the mask; where they are as near, a pixel is theirs.
            after: The objects after it.
        """
        mine = torch.ones_like(self.coarse)
        distance = self._distance(self.box)
        for other in before:
            if other.area.overlaps(self.area):
                mine &= distance < self._distance(other.box)
        for other in after:
            if other.area.overlaps(self.area):
                mine &= distance <= self._distance(other.box)
        return mine

    def _distance(self, box: Box) -> Tensor:
        """Of the area's pixels from a box, in the larger of the two directions, in pixels."""
        x = torch.arange(self.area.x0, self.area.x1, device=self.coarse.device)
        y = torch.arange(self.area.y0, self.area.y1, device=self.coarse.device)
        across = torch.maximum(box.x0 - x, x - (box.x1 - 1)).clamp(min=0)
        down = torch.maximum(box.y0 - y, y - (box.y1 - 1)).clamp(min=0)
        return torch.maximum(across[None, :], down[:, None])

    def _here(self, box: Box) -> Box:
        return box.shift(-self.area.x0, -self.area.y0)


@lru_cache(maxsize=64)
def _falls(start: int, stop: int, limit: int, ramp: int) -> Tensor:
    position = torch.arange(start, stop) + 0.5
    low = torch.full_like(position, math.inf) if start <= 0 else position - start
    high = torch.full_like(position, math.inf) if stop >= limit else stop - position
    return (torch.minimum(low, high) / ramp).clamp(max=1)


def window(box: Box, height: int, width: int, ramp: int) -> Tensor:
    """Blending weights `(box.height, box.width)`: 1 inside, falling to 0 at edges that are not the photo's own."""
    down, across = _falls(box.y0, box.y1, height, ramp), _falls(box.x0, box.x1, width, ramp)
    return (torch.pi / 2 * torch.minimum(down[:, None], across[None, :])).sin().square()
