"""One object of a photo: what the network is shown of it, and where its answers are blended."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ...imaging.boxes import Box
from ...imaging.ops import contour, crop_resized, nonzero_pixels, resize, row_bands
from ...model.diffusion import Uniform, ancestral, confidence, monotone, pixel_thresholds
from ...model.unet import IMAGE_MEAN
from .config import PipelineConfig, Sampler
from .views import View, contour_tiles, needs_tiles, object_area, object_view, scale_seen, surroundings

_PIXELS_AT_ONCE = 1 << 17

_NEAR = 5
"""Side of the square of view pixels around a pixel in which a mask has to show both sides of a contour whole."""

_TRACE = 0.02
"""Coverage below which a pixel is empty, and from one minus which on it is full: what the filter rounds."""


@dataclass(frozen=True)
class PhotoRegion:
    """Where pixels at hand lie in a photo.

    Attributes:
        box: In photo pixels, inside the photo.
        photo: Height and width of the photo.
    """

    box: Box
    photo: tuple[int, int]

    def within(self, box: Box) -> Box:
        """A box of photo pixels as one of the pixels at hand."""
        return box.shift(-self.box.x0, -self.box.y0)


class Canvas:
    """The part of a photo around one object, and the probability of the object's mask there as refined so far.

    Attributes:
        area: All that any view of the object covers, in photo pixels.
        coarse: `(area.height, area.width)` bool.
        probability: `(area.height, area.width)` float.
        region: What tiles may cover, in photo pixels.
        view: Of the whole object.
        seen: Photo pixels per pixel of it, see `views.scale_seen`.

    Args:
        image: `(3, H, W)` uint8, RGB, the photo.
        mask: `(H, W)` bool, the coarse mask.
        box: Of the object, in photo pixels.
        seed: Of the thresholds that decide when a pixel moves to fine.
        config: The pipeline's choices.
        window: Where in a larger photo `image` and `mask` lie, which then hold the object's area at least.
    """

    def __init__(
        self,
        image: Tensor,
        mask: Tensor,
        box: Box,
        seed: int,
        config: PipelineConfig,
        window: PhotoRegion | None = None,
    ) -> None:
        self.image, self.box, self.seed, self.config = image, box, seed, config
        self.window = window or PhotoRegion(Box(0, 0, mask.shape[1], mask.shape[0]), (mask.shape[0], mask.shape[1]))
        self.photo = self.window.photo
        self.view = object_view(box, *self.photo, config)
        self.region = surroundings(box, config)
        self.seen = scale_seen(self.view, self.region, self.photo, config)
        self.area = object_area(box, *self.photo, config)
        self.coarse = self.window.within(self.area).crop(mask[None])[0]
        self.probability = self.coarse.float()
        self._total: Tensor | None = None
        self._before: dict[View, Tensor] = {}
        self._details: dict[View, Tensor] = {}

    def photo_pixels(self) -> Tensor:
        """The photo where the canvas is, `(3, area.height, area.width)` uint8."""
        return self.window.within(self.area).crop(self.image)

    def tiles(self, scale: float) -> list[View]:
        """Tiles of this scale along the contour as it is now; none where they would show nothing new."""
        if not needs_tiles(self.seen, self.region, scale, self.config):
            return []
        # One transfer from a GPU for each band.
        uncertain = torch.empty(self.probability.shape, dtype=torch.bool, device="cpu")
        for rows in row_bands(*uncertain.shape):
            uncertain[rows] = self._uncertain(rows, scale)
        return contour_tiles(uncertain, self.area, self.region, self.photo, scale, self.config)

    def _uncertain(self, rows: slice, scale: float) -> Tensor:
        """Contour pixels in these rows; for the finest tiles those alone around which there is doubt."""
        # A window of one pixel of the level before on either side, and as much again for its blur.
        reach = max(2, round(2 * scale))
        first = max(0, rows.start - reach)
        probability = self.probability[first : rows.stop + reach]
        uncertain = contour(probability >= 0.5)
        if scale <= 1:
            y, x = nonzero_pixels(uncertain)
            # Labels without any doubt are the coarse mask's own, which no view has decided.
            own = confidence(probability[y, x]) == 1
            uncertain[y, x] = (1 - _confidence_around(probability, y, x, reach) > self.config.tiling.undecided) | own
        return uncertain[rows.start - first :][: rows.stop - rows.start]

    def inputs(self, view: View) -> tuple[Tensor, Tensor]:
        """A view's photo `(3, S, S)` float, 0-255, and mask `(1, S, S)` float in {0, 1}."""
        photo = crop_resized(self.image, self.window.within(view.box), view.size, view.size, IMAGE_MEAN)
        inside = view.box.clip(*self.photo).shift(-view.box.x0, -view.box.y0)
        beside = Box(-inside.x0, -inside.y0, view.box.width - inside.x0, view.box.height - inside.y0)
        mask = crop_resized(self._before[view][None], beside, view.size, view.size)
        if view.scale > 1:
            # The first view's mask is the coarse one, whose pixels are covered or not.
            is_first = view == self.view
            covered = mask if is_first else crop_resized(self._before[view][None] >= 0.5, beside, view.size, view.size)
            self._details[view] = _near_details(covered)
        return photo, (mask >= 0.5).float()

    def thresholds(self, view: View) -> Uniform:
        """The numbers of a view's steps, a function of seed and place: whatever it is batched with."""
        size, device = view.size, self.image.device
        x0, y0 = round(view.box.x0 / view.scale), round(view.box.y0 / view.scale)
        if self.config.sampler is Sampler.MONOTONE:
            return monotone(pixel_thresholds(x0, y0, size, size, self.seed)[None].to(device))
        draws = ancestral((1, size, size), Generator().manual_seed(hash((self.seed, x0, y0, size)) % 2**63))
        return lambda: draws().to(device)

    def start_level(self, views: Sequence[View]) -> None:
        """Before these views, all of one level, are blended: they show the mask as it is now."""
        self._total = self._total_weights(views) if len(views) > 1 else None
        if sum(view.box.width * view.box.height for view in views) > self.probability.numel() or len(views) == 1:
            # One view alone reads each pixel before it changes it.
            whole = self.probability.clone() if len(views) > 1 else self.probability
            self._before = {view: self._cut(whole, view) for view in views}
        else:
            self._before = {view: self._cut(self.probability, view).clone() for view in views}

    def _total_weights(self, views: Sequence[View]) -> Tensor:
        """Sum of the views' windows."""
        total = torch.zeros_like(self.probability)
        for view in views:
            for part in self._parts(view):
                self._region(part).crop(total[None])[0].add_(self._photo_region(view, part))
        return total

    def blend(self, view: View, result: Tensor, shown: Tensor) -> None:
        """Blends the refined probability `(1, S, S)` of a view that showed the mask `(1, S, S)`.

        Where the views' windows sum to more than one, each counts for its share; where they sum to less, the rest is
        the mask as it was. A view that shows the mask shrunk says nothing of details that it cannot show: they stay,
        and so does what it agrees with.
        """
        if view.scale > 1:
            changed = ((result >= 0.5) ^ (shown >= 0.5))[0] & ~self._details[view]
            for part in self._parts(view):
                self._blend_changed(view, result, changed, part)
        else:
            for part in self._parts(view):
                self._blend(view, result, part)

    def _blend(self, view: View, result: Tensor, part: Box) -> None:
        """Blends all of a view's result in this part of the photo."""
        inner, place = view.box.clip(*self.photo), self._region(part)
        before = part.shift(-inner.x0, -inner.y0).crop(self._before[view][None])[0]
        new = part.shift(-view.box.x0, -view.box.y0).crop(resize(result, view.box.height, view.box.width))[0]
        weights = self._photo_region(view, part)
        if self._total is not None:
            weights = weights / place.crop(self._total[None])[0].clamp(min=1)
        place.crop(self.probability[None])[0].add_(weights * (new - before))

    def _blend_changed(self, view: View, result: Tensor, changed: Tensor, part: Box) -> None:
        """Blends what is enlarged from one of the view's pixels `(S, S)` bool that changed: little, as a rule."""
        inside, box, size, device = part.shift(-view.box.x0, -view.box.y0), view.box, view.size, result.device
        top, below, down = _neighbours(size, box.height, inside.y0, inside.y1, device)
        left, right, along = _neighbours(size, box.width, inside.x0, inside.x1, device)
        # Whole rows are copied fast, single columns are not.
        across = (changed.T[left] | changed.T[right]).T.contiguous()
        y, x = nonzero_pixels(across[top] | across[below])
        if not len(y):
            return
        top, below, down, left, right, along = top[y] * size, below[y] * size, down[y], left[x], right[x], along[x]
        values = result.reshape(-1)
        upper = torch.lerp(values[top + left], values[top + right], along)
        new = torch.lerp(upper, torch.lerp(values[below + left], values[below + right], along), down)
        fall_down, fall_across = self._falls(view, part)
        weights = torch.minimum(fall_down[y], fall_across[x])
        inner, place = view.box.clip(*self.photo), self._region(part)
        before = self._before[view][y + (part.y0 - inner.y0), x + (part.x0 - inner.x0)]
        y, x = y + place.y0, x + place.x0
        if self._total is not None:
            weights = weights / self._total[y, x].clamp_(min=1)
        self.probability[y, x] += weights * (new - before)

    def _parts(self, view: View) -> Iterator[Box]:
        """What a view shows of the photo, band by band."""
        inner = view.box.clip(*self.photo)
        for rows in row_bands(inner.height, inner.width):
            yield Box(inner.x0, inner.y0 + rows.start, inner.x1, inner.y0 + rows.stop)

    def _falls(self, view: View, part: Box) -> tuple[Tensor, Tensor]:
        """A view's weights of the rows and of the columns of a part of it, of which the smaller counts."""
        ramp = max(1, round(self.config.tiling.overlap * view.scale / 2))
        return falls(view.box, part, *self.photo, ramp, self.probability.device)

    def _photo_region(self, view: View, part: Box) -> Tensor:
        down, across = self._falls(view, part)
        return torch.minimum(down[:, None], across)

    def finish_level(self) -> None:
        """After the views of one level are blended."""
        self.probability.clamp_(0, 1)
        self._total, self._before, self._details = None, {}, {}

    def _cut(self, plane: Tensor, view: View) -> Tensor:
        """The part of a plane of the area that a view shows of the photo."""
        return self._region(view.box.clip(*self.photo)).crop(plane[None])[0]

    def owned_pixels(self, before: Sequence[Box], after: Sequence[Box]) -> Tensor:
        """Pixels of the area, bool, whose nearest object is this one.

        Args:
            before: Boxes of the objects before this one in the mask whose areas overlap this one's; where they are as
                near, a pixel is theirs.
            after: Boxes of those after it.
        """
        mine = torch.ones_like(self.coarse)
        if before or after:
            distance = self._distance(self.box)
            for other in before:
                mine &= distance < self._distance(other)
            for other in after:
                mine &= distance <= self._distance(other)
        return mine

    def paste_into(self, own: Tensor, probability: Tensor) -> None:
        """Writes the object's own pixels into the whole mask's probability `(H, W)`, and forgets them."""
        whole = self.window.within(self.area).crop(probability[None])[0]
        for rows in row_bands(*own.shape):
            whole[rows] = torch.where(own[rows], self.probability[rows], whole[rows])
        self.probability = self.probability.new_empty(0)

    def _distance(self, box: Box) -> Tensor:
        """Of the area's pixels from a box, in the larger of the two directions, in pixels."""
        here = {"device": self.coarse.device, "dtype": torch.int32}
        x = torch.arange(self.area.x0, self.area.x1, **here)  # type: ignore[call-overload]
        y = torch.arange(self.area.y0, self.area.y1, **here)  # type: ignore[call-overload]
        across = torch.maximum(box.x0 - x, x - (box.x1 - 1)).clamp(min=0)
        down = torch.maximum(box.y0 - y, y - (box.y1 - 1)).clamp(min=0)
        return torch.maximum(across[None, :], down[:, None])

    def _region(self, box: Box) -> Box:
        return box.shift(-self.area.x0, -self.area.y0)


def _near_details(covered: Tensor) -> Tensor:
    """Pixels `(S, S)` bool of a view near parts of a mask, or gaps in it, that are narrower than two of its pixels.

    Args:
        covered: `(1, S, S)` float in [0, 1], how much of each pixel the mask covers, by a filter two pixels wide.
    """
    most, least = (sign * F.max_pool2d(sign * covered, _NEAR, stride=1, padding=_NEAR // 2) for sign in (1, -1))
    # Beside a contour that the view shows there are pixels that the mask covers whole, and some not at all.
    details = (covered > _TRACE) & (covered < 1 - _TRACE) & ((most < 1 - _TRACE) | (least > _TRACE))
    return F.max_pool2d(details.float(), _NEAR, stride=1, padding=_NEAR // 2)[0] > 0


def _confidence_around(plane: Tensor, y: Tensor, x: Tensor, reach: int) -> Tensor:
    """Mean confidence in squares of `2 * reach + 1` pixels around the pixels `(n,)`; the plane's border is repeated."""
    offsets = torch.arange(-reach, reach + 1, device=plane.device)
    parts = [plane.new_empty(0)]
    for start in range(0, len(y), _PIXELS_AT_ONCE):
        some = slice(start, start + _PIXELS_AT_ONCE)
        rows = (y[some, None] + offsets).clamp(0, plane.shape[0] - 1)
        columns = (x[some, None] + offsets).clamp(0, plane.shape[1] - 1)
        parts.append(confidence(plane[rows[:, :, None], columns[:, None, :]]).mean(dim=(1, 2)))
    return torch.cat(parts)


def falls(box: Box, part: Box, height: int, width: int, ramp: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Blending weights `(part.height,)` and `(part.width,)` of a view, of which the smaller is that of a pixel.

    1 inside the view's box, falling to 0 at edges that are not the photo's own.
    """
    down = _fall(box.height, ramp, box.y0 > 0, box.y1 < height)[part.y0 - box.y0 : part.y1 - box.y0]
    across = _fall(box.width, ramp, box.x0 > 0, box.x1 < width)[part.x0 - box.x0 : part.x1 - box.x0]
    return down.to(device), across.to(device)


@lru_cache(maxsize=64)
def _fall(length: int, ramp: int, at_start: bool, at_stop: bool) -> Tensor:
    """Weights of so many pixels in one direction, which fall to these ends."""
    position = torch.arange(length, dtype=torch.float32, device="cpu") + 0.5
    low = position if at_start else torch.full_like(position, math.inf)
    high = length - position if at_stop else torch.full_like(position, math.inf)
    return (torch.pi / 2 * (torch.minimum(low, high) / ramp).clamp(max=1)).sin().square()


@lru_cache(maxsize=32)
def _neighbours(size: int, side: int, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of a view of `size` pixels that is enlarged to `side`, the pixels before and after each of some, and how far.

    Args:
        size: Of the view, in one direction.
        side: Of its box.
        start: The first of the enlarged pixels.
        stop: That after the last.
        device: Where to put what is found.

    Returns:
        Pixels of the view, int64, and how far it is from the first to the second of them, in [0, 1).
    """
    place = ((torch.arange(start, stop, dtype=torch.float32, device=device) + 0.5) * (size / side) - 0.5).clamp(
        0, size - 1
    )
    before = place.floor().long()
    return before, place.ceil().long(), place - before
