"""What the page shows of a refinement: pictures to compare, the way of a mask, and numbers."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ...imaging.boxes import Box
from ...refinement.held_back import HeldBack
from ...refinement.report import Report
from ...rendering.overlay import COARSE_COLOUR, REFINED_COLOUR, Window, detail_window, object_window

Photo = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIDE = 1280
"""Of pictures that are shown, at most."""

LOOKS = ("Contour", "Cut out", "Mask")
PARTS = ("All", "Object", "Change")

_DIM = 0.4
_UNSURE_COLOUR = np.array((255, 176, 0), np.float32)
_STATE_COLOUR = np.array((80, 160, 255), np.float32)
HELD_COLOURS = {
    HeldBack.TOO_FAR: (80, 160, 255),
    HeldBack.UNSURE: (255, 176, 0),
    HeldBack.NO_GAIN: (190, 120, 255),
    HeldBack.DISAGREEMENT: (255, 90, 70),
    HeldBack.SPECK: (0, 200, 180),
}
"""Of the reasons for which a change was held back."""

_MARKS = 300
"""A marked pixel is spread by the picture's longer side over this, in pixels, in each direction."""

_CHECKS = ((205, 205, 205), (235, 235, 235))
_FRAME = 480
_CAPTION = 34
_FRAME_MS, _LAST_FRAME_MS = 900, 2600


def slider_pair(
    photo: Photo, coarse: Mask, probability: NDArray[np.float32], *, look: str = LOOKS[0], part: str = PARTS[0]
) -> tuple[Photo, Photo]:
    """The same part of the photo with the rough and with the refined mask.

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        coarse: `(H, W)` bool.
        probability: `(H, W)` float in [0, 1], of the refined mask.
        look: One of `LOOKS`.
        part: One of `PARTS`.

    Returns:
        Two pictures `(h, w, 3)` uint8 of one size, `SIDE` pixels on the longer side at most.
    """
    here = _slices(_window(coarse, probability >= 0.5, part))
    before, after = coarse[here].astype(np.float32), probability[here]
    size = _fitting(before.shape, SIDE)
    small = _resized(photo[here], size)
    masks = [_resized_mask(mask, size) for mask in (before, after)]
    if look == LOOKS[2]:
        first, second = (np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2) for mask in masks)
    elif look == LOOKS[1]:
        first, second = (_on_checks(small, mask) for mask in masks)
    else:
        first, second = (
            _outlined(small, mask >= 0.5, colour)
            for mask, colour in zip(masks, (COARSE_COLOUR, REFINED_COLOUR), strict=True)
        )
    return first, second


def confidence_picture(photo: Photo, probability: NDArray[np.float32]) -> Photo:
    """The photo in dim grey, in amber where the network is unsure: the brighter, the nearer to a half it is.

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        probability: `(H, W)` float in [0, 1], of the refined mask.

    Returns:
        `(h, w, 3)` uint8, `SIDE` pixels on the longer side at most.
    """
    size = _fitting(probability.shape, SIDE)
    # Doubt is thin lines mostly: what is shrunk keeps the most unsure pixel rather than the mean.
    unsure = _shrunk_by_largest(1 - 2 * np.abs(probability - 0.5), size)
    grey = _resized(photo, size).mean(axis=2, keepdims=True) * 0.55
    return np.rint(grey + unsure[..., None] * (_UNSURE_COLOUR - grey)).astype(np.uint8)


def held_picture(photo: Photo, around: Mask, planes: Mapping[HeldBack, Mask]) -> Photo:
    """The object in dim grey, with what was held back in the colour of its reason, spread a little to be seen.

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        around: `(H, W)` bool, the object, of which the picture shows what is around.
        planes: `(H, W)` bool, the pixels of each reason, from `held_back`.

    Returns:
        `(h, w, 3)` uint8, `SIDE` pixels on the longer side at most.
    """
    everything = around.copy()
    for plane in planes.values():
        everything |= plane
    here = _slices(object_window(everything))
    size = _fitting(everything[here].shape, SIDE)
    picture = np.repeat(_resized(photo[here], size).mean(axis=2, keepdims=True) * 0.55, 3, axis=2)
    for why, plane in planes.items():
        # Lines of a pixel's width stay visible where the photo is shrunk, here and by the browser.
        weight = _widened(_shrunk_by_largest(plane[here].astype(np.float32), size))[..., None]
        picture += np.minimum(weight, 0.9) * (np.array(HELD_COLOURS[why], np.float32) - picture)
    return np.rint(picture).astype(np.uint8)


def _widened(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spread `(h, w)` float32 marks in [0, 1], so that a single one shows on a page that shrinks the picture."""
    reach = max(weight.shape) // _MARKS
    spread = Image.fromarray(np.rint(weight * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * reach + 1))
    return np.asarray(spread, np.float32) / np.float32(255)


def way_frames(
    photo: Photo,
    coarse: Mask,
    refined: Mask,
    states: Sequence[NDArray[np.float32]],
    seen: NDArray[np.float32] | None,
    view: Window,
) -> list[Photo]:
    """The mask's way from rough to refined, picture by picture.

    Args:
        photo: `(H, W, 3)` uint8, RGB.
        coarse: `(H, W)` bool.
        refined: `(H, W)` bool.
        states: `(S, S)` float in {0, 1}, the mask of the whole object's view after each step.
        seen: `(S, S)` float in [0, 1], the probability that came out of the last step, if there was one.
        view: `y0, x0, y1, x1` of that view in photo pixels, a square that may reach beyond the photo.

    Returns:
        `(h, w, 3)` uint8 each, of one size, with what they are written above.
    """
    square = Box(view[1], view[0], view[3], view[2])
    inner = square.clip(*coarse.shape)
    here = (slice(inner.y0, inner.y1), slice(inner.x0, inner.x1))
    size = _fitting(coarse[here].shape, _FRAME, enlarge=True)
    small = _resized(photo[here], size)
    frames = [_captioned(_outlined(small, _resized_mask(coarse[here], size) >= 0.5, COARSE_COLOUR), "The rough mask")]
    captions = [f"The whole object, step {index} of {len(states)}" for index in range(1, len(states) + 1)]
    between = list(zip(captions, states, strict=True))
    if seen is not None and (not states or ((seen >= 0.5) != (states[-1] >= 0.5)).any()):
        between.append(("The whole object, as now seen", (seen >= 0.5).astype(np.float32)))
    for caption, state in between:
        whole = _resized_mask(state, (square.width, square.height))
        shown = whole[inner.y0 - square.y0 :, inner.x0 - square.x0 :][: inner.height, : inner.width]
        frames.append(_captioned(_tinted(small, _resized_mask(shown, size)), caption))
    last = _outlined(small, _resized_mask(refined[here], size) >= 0.5, REFINED_COLOUR)
    return [*frames, _captioned(last, "The result, after tiles along its contour")]


def animation(frames: Sequence[Photo]) -> bytes:
    """An animated WebP of pictures `(h, w, 3)` uint8 of one size, again and again, the last one longer."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    stream = io.BytesIO()
    times = [_FRAME_MS] * len(others) + [_LAST_FRAME_MS]
    first.save(stream, "WEBP", save_all=True, append_images=others, duration=times, loop=0, quality=82, method=3)
    return stream.getvalue()


def numbers(report: Report) -> list[tuple[str, str]]:
    """What changed, as names and values for people."""
    rows = [
        ("Pixels changed", f"{100 * report.changed:.2f} %"),
        ("Overlap with the rough mask (IoU)", f"{100 * report.agreement:.1f} %"),
        ("Farthest change", f"{report.largest_shift:.0f} px"),
        ("Mean confidence there", f"{100 * report.confidence:.0f} %"),
        ("Expected gain in IoU", f"{100 * report.predicted_gain:.1f} points"),
    ]
    if report.unsure:
        rows.append(("Left as it was, too unsure", f"{100 * report.unsure:.2f} %"))
    if report.too_far:
        rows.append(("Left as it was, too far away", f"{100 * report.too_far:.2f} %"))
    if report.ceded:
        rows.append(("Left to other masks", f"{100 * report.ceded:.2f} %"))
    rows += [(f"Objects left as they were: {why}", str(count)) for why, count in report.kept_objects.items()]
    rows[:0] = [("Note", said) for said in (report.note, *report.warnings) if said]
    steps = f"{report.steps} step{'s' if report.steps > 1 else ''}"
    made = f"{report.model}, {steps}, seed {report.seed}"
    return [*rows, ("Time", f"{report.seconds:.1f} s"), ("Made with", made)]


def shown_photo(photo: Photo, side: int) -> Photo:
    """A photo `(H, W, 3)` uint8, `side` pixels on the longer side at most."""
    return _resized(photo, _fitting(photo.shape[:2], side))


def _window(coarse: Mask, refined: Mask, part: str) -> Window:
    whole = (0, 0, *coarse.shape)
    if part == PARTS[0]:
        return whole
    around = object_window(coarse | refined)
    changed = coarse != refined
    return detail_window(changed, around) if part == PARTS[2] and changed.any() else around


def _slices(window: Window) -> tuple[slice, slice]:
    y0, x0, y1, x1 = window
    return slice(y0, y1), slice(x0, x1)


def _fitting(shape: Sequence[int], side: int, *, enlarge: bool = False) -> tuple[int, int]:
    """Width and height of a picture `(H, W)` whose longer side becomes `side`, if it is longer."""
    scale = side / max(shape)
    scale = scale if enlarge else min(1.0, scale)
    # Small parts are enlarged somewhat, or contours would be as thick as what they surround.
    if not enlarge and max(shape) < side // 2:
        scale = side / 2 / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _resized(photo: Photo, size: tuple[int, int]) -> Photo:
    shrink = size[0] < photo.shape[1]
    method = Image.Resampling.LANCZOS if shrink else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(photo)).resize(size, method, reducing_gap=3.0))


def _resized_mask(mask: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """`(H, W)` bool or float in [0, 1]; enlarged pixels stay squares, so that one sees a mask's true steps."""
    method = Image.Resampling.BOX if size[0] < mask.shape[1] else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(mask, np.float32)).resize(size, method))


def _shrunk_by_largest(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    step = max(1, -(-values.shape[1] // size[0]))
    if step > 1:
        padded = np.pad(values, [(0, -side % step) for side in values.shape])
        blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
        values = blocks.max(axis=(1, 3))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))


def _outlined(photo: Photo, mask: Mask, colour: tuple[int, int, int]) -> Photo:
    """The background dimmed, and a line of about two pixels along the contour."""
    picture = np.where(mask[..., None], photo, photo * np.float32(_DIM)).astype(np.uint8)
    edge = np.zeros_like(mask)
    for axis in (0, 1):
        differs = np.diff(mask, axis=axis)
        for side in ((0, 1), (1, 0)):
            pad = [(0, 0), (0, 0)]
            pad[axis] = side
            edge |= np.pad(differs, pad)
    picture[edge] = colour
    return picture


def _tinted(photo: Photo, mask: NDArray[np.float32]) -> Photo:
    """The background dimmed and the object in a tint: lines around each scattered pixel would hide all else."""
    inside = photo + 0.45 * (_STATE_COLOUR - photo)
    return np.rint(_DIM * photo + mask[..., None] * (inside - _DIM * photo)).astype(np.uint8)


def _on_checks(photo: Photo, alpha: NDArray[np.float32]) -> Photo:
    height, width = alpha.shape
    squares = (np.arange(height)[:, None] // 12 + np.arange(width)[None, :] // 12) % 2
    ground = np.array(_CHECKS, np.float32)[squares]
    return np.rint(ground + alpha[..., None] * (photo - ground)).astype(np.uint8)


def _captioned(picture: Photo, caption: str) -> Photo:
    framed = Image.new("RGB", (picture.shape[1], picture.shape[0] + _CAPTION), (24, 24, 27))
    framed.paste(Image.fromarray(picture), (0, _CAPTION))
    size = 17
    font = ImageFont.load_default(size=size)
    while size > 8 and font.getlength(caption) > picture.shape[1] - 12:
        size -= 1
        font = ImageFont.load_default(size=size)
    ImageDraw.Draw(framed).text((8, _CAPTION / 2), caption, fill="white", font=font, anchor="lm")
    return np.asarray(framed)
