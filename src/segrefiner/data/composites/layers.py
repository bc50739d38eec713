"""Composites of objects and photos that a camera could have taken, with exact masks.

An object is a layer: colours and the share of each pixel that it covers. Its light, sharpness and grain are brought
near those of the background, then layers are blended in their order. Colours are floats in [0, 1], sRGB.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ...errors import InputError

Plane = NDArray[np.float32]
Colours = NDArray[np.float32]
Photo = NDArray[np.uint8]

LEAST_CONTRAST = 0.12
"""Least difference in brightness between an object and the background around it, of 1."""

MOST_ENLARGED = 1.6
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FINE, _WIDE = 0.6, 1.2
_SHARPEST = 0.02


@dataclass(frozen=True)
class Layer:
    """An object in a picture.

    Attributes:
        colour: `(H, W, 3)` float32 in [0, 1], sRGB; anything where alpha is 0.
        alpha: `(H, W)` float32 in [0, 1], with which the object is blended.
        coverage: `(H, W)` float32 in [0, 1], the share of each pixel that the object covers: alpha before any blur.
    """

    colour: Colours
    alpha: Plane
    coverage: Plane


def crop_background(photo: Photo, height: int, width: int, random: Generator) -> Colours:
    """A part of a photo at a random place and scale, flipped now and then, as `(height, width, 3)` float32 in [0, 1].

    Photos are enlarged by at most `MOST_ENLARGED`, unless they are smaller than that as a whole.
    """
    tall, wide = photo.shape[:2]
    whole = min(tall / height, wide / width)
    least = min(whole, 1 / MOST_ENLARGED)
    scale = math.exp(random.uniform(math.log(max(least, 0.4 * whole)), math.log(whole)))
    h, w = min(tall, height * scale), min(wide, width * scale)
    top, left = random.uniform(0, tall - h), random.uniform(0, wide - w)
    picture = Image.fromarray(photo).resize(
        (width, height), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h), reducing_gap=3.0
    )
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(np.asarray(picture, np.float32) / 255, np.float32)


def place_cutout(
    cutout: Photo,
    height: int,
    width: int,
    random: Generator,
    *,
    centre: tuple[float, float] | None = None,
    extent: tuple[float, float] = (0.3, 0.95),
) -> Layer:
    """A cut-out somewhere in a picture, turned, scaled and flipped.

    Args:
        cutout: `(h, w, 4)` uint8, RGBA, not premultiplied.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
        random: The source of every draw.
        centre: `(x, y)` in pixels; `None` draws one, at which the object is wholly visible three times out of four.
        extent: Bounds of the cut-out's size, as a share of the picture's; small cut-outs stay smaller.

    Raises:
        InputError: The cut-out has no alpha, or is transparent or opaque all over.
    """
    check_cutout(cutout)
    # Premultiplied, or the colours that transparent pixels happen to have would bleed into the contour.
    picture = Image.fromarray(cutout).convert("RGBa")
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = random.uniform(-180, 180) if random.random() < 0.15 else random.normal(0, 8)
    picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    box = picture.getchannel("a").getbbox()
    picture = picture.crop(box)
    fits = min(width / picture.width, height / picture.height)
    scale = min(fits * random.uniform(*extent), MOST_ENLARGED)
    size = max(2, round(picture.width * scale)), max(2, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if centre is None:
        beyond = 0.3 if random.random() < 0.25 else 0.0
        left = _uniform(random, -beyond * size[0], width - (1 - beyond) * size[0])
        top = _uniform(random, -beyond * size[1], height - (1 - beyond) * size[1])
    else:
        left, top = centre[0] - size[0] / 2, centre[1] - size[1] / 2
    canvas = Image.new("RGBa", (width, height))
    canvas.paste(picture, (round(left), round(top)))
    pixels = np.asarray(canvas, np.float32) / np.float32(255)
    alpha = np.asarray(pixels[..., 3], np.float32, order="C")
    colour = np.clip(pixels[..., :3] / np.maximum(alpha, 1e-3)[..., None], 0, 1)
    return Layer(colour.astype(np.float32), alpha, alpha)


def check_cutout(cutout: NDArray[np.uint8], name: str = "the cut-out") -> None:
    """Raises `InputError` unless this is RGBA, partly visible and partly transparent."""
    if cutout.ndim != 3 or cutout.shape[2] != 4:
        raise InputError(f"{name} has no alpha: expected RGBA, with alpha 0 around the object")
    if cutout[..., 3].min() >= 128 or cutout[..., 3].max() < 128:
        state = "opaque" if cutout[..., 3].min() >= 128 else "transparent"
        raise InputError(f"{name} is {state} all over: expected an object with alpha 0 around it")


def paint_structure(
    coverage: Plane, background: Colours, random: Generator, *, tone: str = "any", texture: Colours | None = None
) -> Layer:
    """Gives a structure its colours: shaded, rough, and told from the background around it everywhere.

    Args:
        coverage: `(H, W)` float32 in [0, 1].
        background: `(H, W, 3)` float32, what it will be put on.
        random: The source of every draw.
        tone: "any", "plant" (greens and browns), "wood" (browns and greys) or "tint" (the background, darker or
            lighter, as vessels in tissue are).
        texture: `(H, W, 3)` float32, a part of another photo to be used now and then instead of one colour.
    """
    size = coverage.shape
    around = np.stack([ndimage.gaussian_filter(c, 6) for c in np.moveaxis(background, -1, 0)], axis=-1)
    plain: NDArray[np.floating[Any]]
    if tone == "tint" and random.random() < 0.8:
        plain = around * random.uniform(0.35, 0.8) * random.uniform([0.9, 0.6, 0.6], 1.1)
    elif tone == "tint":
        plain = 1 - (1 - around) * random.uniform(0.3, 0.7)
    elif tone == "any" and texture is not None and random.random() < 0.35:
        plain = texture * random.uniform(0.6, 1.2)
    else:
        plain = _own_colour(tone, random)
    uneven = 1 + random.uniform(0.05, 0.3) * _cloud(size, random) + random.uniform(0.01, 0.06) * _rough(size, random)
    light = random.uniform(0, 2 * math.pi)
    slope = np.gradient(ndimage.gaussian_filter(coverage, random.uniform(0.8, 2)))
    relief = random.uniform(0, 0.6) * (math.cos(light) * slope[0] + math.sin(light) * slope[1])
    colour = np.clip(plain * (uneven + relief)[..., None], 0, 1).astype(np.float32)
    reach = 40.0 if tone == "plant" else 4.0
    return Layer(_told_apart(colour, coverage, background, around, reach, random), coverage, coverage)


def _own_colour(tone: str, random: Generator) -> NDArray[np.float32]:
    """One colour, `(3,)`: mostly dull, as things are."""
    hue, value = random.uniform(0, 1), random.uniform(0.05, 0.95)
    saturation = random.uniform(0, 0.25) if random.random() < 0.7 else random.uniform(0.3, 0.9)
    if tone == "plant":
        hue, saturation, value = random.uniform(0.14, 0.4), random.uniform(0.25, 0.8), random.uniform(0.15, 0.75)
    elif tone == "wood":
        hue, saturation, value = random.uniform(0.04, 0.12), random.uniform(0.05, 0.5), random.uniform(0.05, 0.6)
    spectrum = np.clip(np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation + saturation * spectrum), np.float32)


def _told_apart(
    colour: Colours, coverage: Plane, background: Colours, around: Colours, reach: float, random: Generator
) -> Colours:
    """The colours, moved away from the background's brightness where they are too near to be seen.

    `reach` is over how many pixels along the structure they are moved alike.
    """
    brightness = background @ _LUMA
    busy = np.sqrt(
        np.maximum(ndimage.gaussian_filter(brightness**2, 6) - ndimage.gaussian_filter(brightness, 6) ** 2, 0)
    )
    least = np.clip(np.maximum(LEAST_CONTRAST * random.uniform(1, 2), busy * random.uniform(1.2, 2)), 0, 0.5)
    base, own = around @ _LUMA, colour @ _LUMA
    weight = coverage + 1e-6
    darker = float((weight * (own - base)).sum()) < 0
    # Where one side has no room, the other one has: a wire is dark before the sky and light before a forest. Asking a
    # wide neighbourhood keeps it from changing with every fold of a coat.
    broad = ndimage.gaussian_filter(base, 20)
    low, high = np.minimum(broad, base + least / 2), np.maximum(broad, base - least / 2)
    down = np.where(low < least, False, np.where(high > 1 - least, True, darker))
    lacking = np.where(down, np.minimum(base - least - own, 0), np.maximum(base + least - own, 0))
    # Along the structure alone, and smoothly, or what a leaf hides would shine through it.
    lacking = ndimage.gaussian_filter(lacking * weight, reach) / np.maximum(
        ndimage.gaussian_filter(weight, reach), 1e-6
    )
    return np.asarray(np.clip(colour + lacking[..., None], 0, 1), np.float32)


def match_sharpness(layer: Layer, background: Colours, random: Generator, *, blur: float | None = None) -> Layer:
    """Brings a layer's sharpness and grain near the background's.

    Args:
        layer: The object.
        background: `(H, W, 3)` float32.
        random: The source of every draw: how near, each time.
        blur: Blur of the background's edges in pixels, as `edge_blur` gives it; by default it is measured.

    Returns:
        The layer with other colours and a blurred alpha; its coverage stays.
    """
    blur = edge_blur(background) if blur is None else blur
    more = math.sqrt(max(0.0, blur**2 - _layer_blur(layer) ** 2)) * random.uniform(0.6, 1)
    soft = _blurred(layer, more) if more > 0.25 else layer
    grain = noise_level(background) * random.uniform(0.5, 1.2) - noise_level(soft.colour, soft.coverage > 0.9)
    if grain > 0.002:
        noise = random.normal(0, grain, soft.colour.shape[:2]).astype(np.float32)
        soft = replace(soft, colour=np.clip(soft.colour + noise[..., None], 0, 1))
    return soft


def match_light(layer: Layer, background: Colours, random: Generator) -> Layer:
    """Brings a layer's brightness, contrast and colour temperature near those of the background around it.

    Args:
        layer: The object.
        background: `(H, W, 3)` float32.
        random: The source of every draw: how near, each time.
    """
    inside = layer.coverage > 0.5
    if not inside.any():
        return layer
    near = _around(layer.coverage)
    own, there = layer.colour[inside], background[near] if near.any() else background.reshape(-1, 3)
    gain = np.clip(there.mean() / max(float(own.mean()), 0.02), 0.4, 2.0) ** random.uniform(0, 0.6)
    warmth = (there.mean(axis=0) + 0.05) / (there.mean() + 0.05) / ((own.mean(axis=0) + 0.05) / (own.mean() + 0.05))
    gains = gain * np.clip(warmth, 0.75, 1.3) ** random.uniform(0, 0.5)
    spread = float((own @ _LUMA).std())
    contrast = np.clip((there @ _LUMA).std() / max(spread, 0.03), 0.7, 1.3) ** random.uniform(0, 0.7)
    middle = own.mean(axis=0)
    moved = ((layer.colour - middle) * contrast + middle) * gains
    # An object that looks like what is behind it has no contour to be found.
    mean, base = float((moved[inside] @ _LUMA).mean()), float((there @ _LUMA).mean())
    if abs(mean - base) < LEAST_CONTRAST / 2 and np.abs(moved[inside].mean(axis=0) - there.mean(axis=0)).max() < 0.1:
        moved = moved + (LEAST_CONTRAST if mean >= base else -LEAST_CONTRAST)
    return replace(layer, colour=np.clip(moved, 0, 1).astype(np.float32))


def _around(coverage: Plane) -> NDArray[np.bool_]:
    """The background beside an object, `(H, W)` bool."""
    width = 4 + 0.15 * math.sqrt(float(coverage.sum()))
    return (ndimage.gaussian_filter(coverage, width, truncate=2) > 0.02) & (coverage < 0.02)


def soften(image: Colours, sigma: float) -> Colours:
    """A picture through a lens that is out of focus; `sigma` in pixels."""
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)), np.float32)


def edge_blur(image: Colours) -> float:
    """The blur of a picture's sharpest edges: the sigma of a Gaussian in pixels, 0.3 to 3.

    After Zhuo and Sim, Defocus map estimation from a single image, 2011: an edge's slope, blurred twice, tells how
    much it was blurred before.
    """
    brightness = image @ _LUMA if image.ndim == 3 else image
    fine = ndimage.gaussian_gradient_magnitude(brightness, _FINE)
    strong = fine >= max(0.01, np.quantile(fine, 1 - _SHARPEST))
    if not strong.any():
        return 1.0
    ratio = float(np.median(ndimage.gaussian_gradient_magnitude(brightness, _WIDE)[strong] / fine[strong]))
    ratio = min(max(ratio, _FINE / _WIDE), 0.98)
    return float(np.clip(math.sqrt(max(0.0, (_WIDE**2 * ratio**2 - _FINE**2) / (1 - ratio**2))), 0.3, 3))


def _layer_blur(layer: Layer) -> float:
    """The blur of a layer's own edges in pixels, contour and texture alike."""
    return edge_blur((layer.colour @ _LUMA) * layer.alpha)


def _blurred(layer: Layer, sigma: float) -> Layer:
    """The layer through a lens; colours are weighted by alpha, so that none come in from outside."""
    alpha = np.clip(ndimage.gaussian_filter(layer.alpha, sigma), 0, 1)
    weighted = ndimage.gaussian_filter(layer.colour * layer.alpha[..., None], (sigma, sigma, 0))
    colour = np.clip(weighted / np.maximum(alpha, 1e-3)[..., None], 0, 1)
    return Layer(colour.astype(np.float32), np.where(alpha < 1 / 512, 0, alpha).astype(np.float32), layer.coverage)


def noise_level(image: Colours, where: NDArray[np.bool_] | None = None) -> float:
    """The grain of a picture: the standard deviation of brightness from pixel to pixel in its calmest fifth."""
    brightness = image @ _LUMA
    high = np.abs(brightness - ndimage.uniform_filter(brightness, 3))
    values = high if where is None else high[where]
    # A fifth of |x| of unit variance lies below 0.253, and the mean of nine takes a ninth of the variance away.
    return float(np.quantile(values, 0.2) / 0.253 / math.sqrt(8 / 9)) if values.size else 0.0


def blend(background: Colours, layers: Sequence[Layer], *, linear: bool = True) -> Colours:
    """Puts layers on a background, the last on top.

    Args:
        background: `(H, W, 3)` float32 in [0, 1].
        layers: Layers of the background's size, the last on top.
        linear: Whether light is blended, as a lens does, or sRGB values, as most programs do.

    Returns:
        `(H, W, 3)` float32. Where alpha is 0, it is the background's own value.
    """
    result = background
    for layer in layers:
        alpha = layer.alpha[..., None]
        if linear:
            mixed = _to_srgb(_to_linear(result) * (1 - alpha) + _to_linear(layer.colour) * alpha)
        else:
            mixed = result * (1 - alpha) + layer.colour * alpha
        result = np.where(alpha > 0, mixed, result)
    return np.asarray(result, np.float32)


def _to_linear(colour: Colours) -> Colours:
    return np.asarray(np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4), np.float32)


def _to_srgb(light: Colours) -> Colours:
    light = np.clip(light, 0, 1)
    return np.asarray(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055), np.float32)


def visible(layers: Sequence[Layer], wanted: int) -> NDArray[np.bool_]:
    """The exact mask `(H, W)` bool of one of the layers: where at least half of a pixel shows it."""
    shown = layers[wanted].coverage
    for layer in layers[wanted + 1 :]:
        shown = shown * (1 - layer.coverage)
    return np.asarray(shown >= 0.5)


def cast_shadow(background: Colours, layer: Layer, random: Generator) -> Colours:
    """The background, darker beside the object."""
    size = 1 + 0.06 * math.sqrt(float(layer.coverage.sum()))
    angle, far = random.uniform(0, 2 * math.pi), size * random.uniform(0.3, 1.5)
    moved = ndimage.shift(layer.coverage, (far * math.sin(angle), far * math.cos(angle)), order=1)
    shade = ndimage.gaussian_filter(moved, size * random.uniform(0.2, 1)) * random.uniform(0.15, 0.55)
    return np.asarray(background * (1 - shade)[..., None], np.float32)


def develop(image: Colours, random: Generator) -> bytes:
    """What a camera does to a picture: blur and grain now and then, and JPEG of a random quality."""
    if random.random() < 0.15:
        image = soften(image, random.uniform(0.3, 0.9))
    if random.random() < 0.4:
        grain = random.uniform(0.003, 0.02)
        noise = random.normal(0, grain, image.shape[:2])[..., None] + random.normal(0, grain / 2, image.shape)
        image = image + noise.astype(np.float32)
    quality, subsampling = int(random.integers(60, 97)), int(random.choice([0, 2]))
    stream = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return stream.getvalue()


def to_bytes(image: Colours) -> Photo:
    """Colours in [0, 1] as uint8, rounded."""
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), np.uint8)


def _uniform(random: Generator, a: float, b: float) -> float:
    return random.uniform(min(a, b), max(a, b))


def _cloud(size: tuple[int, ...], random: Generator) -> Plane:
    """A smooth random field in [-1, 1], as uneven light makes."""
    grid = Image.fromarray(random.uniform(-1, 1, (4, 5)).astype(np.float32))
    return np.asarray(grid.resize((size[1], size[0]), Image.Resampling.BICUBIC)).clip(-1, 1)


def _rough(size: tuple[int, ...], random: Generator) -> Plane:
    """Fine noise of unit variance, a pixel or two in grain."""
    noise = ndimage.gaussian_filter(random.normal(size=size).astype(np.float32), 0.7)
    return np.asarray(noise / noise.std(), np.float32)
