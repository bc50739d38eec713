"""Changes of training crops, in batches on the training device: colours, blur, noise, other backgrounds, thin objects.

Every function takes and gives whole batches, draws from the caller's generator alone and leaves its inputs as they are.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from .coarse.masks import chance, smooth_noise, uniform


def change_colours(image: Tensor, generator: Generator, strength: float) -> Tensor:
    """Changes brightness, contrast and saturation of each crop at random; a tenth of the crops turn grey.

    Args:
        image: `(B, 3, S, S)` float, RGB, 0-255.
        generator: Source of all draws, on the image's device.
        strength: Largest change of each, as a share of what it is, in [0, 1].

    Returns:
        `(B, 3, S, S)` float, 0-255.
    """
    draw = torch.rand(len(image), 5, 1, 1, 1, generator=generator, device=image.device)
    gain, contrast, saturation = (1 + strength * (2 * draw[:, i] - 1) for i in range(3))
    saturation = torch.where(draw[:, 3] < 0.1, 0.0, saturation)
    grey = image.mean(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    image = grey + (image - grey) * saturation
    return ((image - mean) * contrast + mean * gain).clamp(0, 255)


def degrade(image: Tensor, generator: Generator, share: float) -> Tensor:
    """Blurs some of the crops by up to about a pixel and gives as many of them grain.

    Args:
        image: `(B, 3, S, S)` float, RGB, 0-255.
        generator: Source of all draws, on the image's device.
        share: Share of the crops that are blurred, and of those with grain, in [0, 1].

    Returns:
        `(B, 3, S, S)` float, 0-255.
    """
    batch = len(image)
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=image.device) / 16
    kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
    soft = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)
    blur = uniform(batch, 0.3, 1.0, generator) * chance(batch, share, generator)
    grain = uniform(batch, 2.0, 12.0, generator) * chance(batch, share, generator)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return (torch.lerp(image, soft, blur) + grain * noise).clamp(0, 255)


def coverage(distance: Tensor, scale: Tensor) -> Tensor:
    """How much of each pixel an object covers, in [0, 1], from its signed distance in crop pixels.

    Args:
        distance: `(B, 1, S, S)` float.
        scale: `(B, 1, 1, 1)` photo pixels per crop pixel; edges of enlarged photos are as much softer.
    """
    return torch.sigmoid(distance / (0.35 * (1 / scale).clamp(min=1)))


def paste(image: Tensor, distance: Tensor, scale: Tensor, generator: Generator, share: float) -> Tensor:
    """Shows the object of a share of the crops on the crop that follows it in the batch.

    What is around an object tells nothing then, and another object may lie beside it that is not asked for.

    Args:
        image: `(B, 3, S, S)` float, 0-255.
        distance: `(B, 1, S, S)` float, signed distance to the object's contour.
        scale: `(B, 1, 1, 1)` float, photo pixels per crop pixel.
        generator: Source of all draws, on the image's device.
        share: Share of the crops that are changed, in [0, 1].

    Returns:
        `(B, 3, S, S)` float, 0-255.
    """
    chosen = chance(len(image), share, generator)
    return torch.where(chosen, torch.lerp(image.roll(-1, 0), image, coverage(distance, scale)), image)


def thin_structures(batch: int, size: int, generator: Generator) -> Tensor:
    """Draws strands, fences and spokes, one to eight pixels thick.

    Args:
        batch: Number B of pictures.
        size: Side S of the pictures in pixels.
        generator: Source of all draws; the result lies on its device.

    Returns:
        `(B, 1, S, S)` float, signed distances to the contours in pixels, positive inside.
    """
    half = uniform(batch, 0.0, 1.0, generator).square() * 3.5 + 0.6
    rows = torch.arange(size, device=generator.device) + 0.5
    y, x = rows.view(1, 1, -1, 1), rows.view(1, 1, 1, -1)

    # Strands lie where a smooth field is zero; the field over its slope is about the distance to there.
    wave = smooth_noise(batch, size, 3, generator) + 0.3 * smooth_noise(batch, size, 9, generator)
    down, right = torch.gradient(wave, dim=(2, 3))
    slope = (down.square() + right.square()).sqrt()
    strands = (wave / slope.clamp(min=0.3 * slope.mean())).abs()

    angle = uniform(batch, 0.0, math.pi, generator)
    period = (6 * half).clamp(min=10) * uniform(batch, 1.0, 4.0, generator)
    warp = 0.02 * size * wave
    along, across = x * angle.cos() + y * angle.sin() + warp, y * angle.cos() - x * angle.sin() + warp
    bars, crossbars = ((v.remainder(period) - period / 2).abs() for v in (along, across))
    fence = torch.where(chance(batch, 0.5, generator), bars, torch.minimum(bars, crossbars))

    hub_y, hub_x = uniform(batch, 0.2, 0.8, generator) * size, uniform(batch, 0.2, 0.8, generator) * size
    count = uniform(batch, 3.0, 12.0, generator).floor()
    turn = (torch.atan2(y - hub_y, x - hub_x) + angle) * count / (2 * math.pi)
    radius = torch.hypot(y - hub_y, x - hub_x)
    spokes = radius * ((turn.remainder(1) - 0.5).abs() * 2 * math.pi / count).clamp(max=math.pi / 2).sin()

    kind = uniform(batch, 0.0, 3.0, generator)
    return half - torch.where(kind < 1, strands, torch.where(kind < 2, fence, spokes))


def add_thin(
    image: Tensor, distance: Tensor, scale: Tensor, generator: Generator, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives a share of the crops thin structures, textured by the batch's next crop, as their object.

    Args:
        image: `(B, 3, S, S)` float, 0-255.
        distance: `(B, 1, S, S)` float, signed distance to the contour of the object, which is an object no more.
        scale: `(B, 1, 1, 1)` float, photo pixels per crop pixel.
        generator: Source of all draws, on the image's device.
        share: Share of the crops that are changed, in [0, 1].

    Returns:
        Image, distance, and `(B,)` bool: the crops that were changed.
    """
    batch, size = len(image), image.shape[-1]
    chosen = chance(batch, share, generator)
    thin = thin_structures(batch, size, generator)
    # A shade of its own, so that there is something to see.
    texture = image.roll(-1, 0) * uniform(batch, 0.3, 1.0, generator) + uniform(batch, -30.0, 110.0, generator)
    shown = torch.lerp(image, texture.clamp(0, 255), coverage(thin, scale))
    return torch.where(chosen, shown, image), torch.where(chosen, thin, distance), chosen[:, 0, 0, 0]
