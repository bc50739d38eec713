"""Colour profiles: what a photo's stored values look like, so that its cut-out looks the same.

A photo keeps the values that its file stores, and the ICC profile that says which colours they are; both travel to what
is cut out of it. The network was trained on sRGB, and sees the values brought to it.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import reason

LARGEST_PROFILE = 4 << 20
"""Bytes of a profile; those of printing presses, the largest in use, have two million."""

_LEAST = 132
"""Bytes of a profile's header and of the number of its tags."""

_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
"""Profiles of devices and colour spaces; others say how one profile becomes another."""

_NEAR = 2
"""Difference of 255 up to which a profile counts as sRGB's own, of which there are dozens that differ by rounding."""

_BAND_PIXELS = 4_000_000
"""That are converted at once, so that memory is bounded."""

_SRGB = "its colours are taken as sRGB"


def profile_of(data: bytes | None) -> tuple[bytes | None, str]:
    """Choose the profile of a photo's values.

    Args:
        data: What its file holds as one; `None` for nothing.

    Returns:
        An RGB profile that can be used, or `None`; and what is to be said of it, as the end of a sentence.
    """
    if not data:
        return None, ""
    if len(data) > LARGEST_PROFILE:
        return None, f"has a colour profile of {len(data) / 1e6:.1f} MB, which is left out: {_SRGB}"
    space = data[16:20].decode("latin-1").strip()
    intact = len(data) >= _LEAST and _LEAST <= int.from_bytes(data[:4], "big") <= len(data) and data[36:40] == b"acsp"
    if not intact or data[12:16] not in _CLASSES:
        return None, f"has a damaged colour profile, which is left out: {_SRGB}"
    if space != "RGB":
        kind = {"GRAY": "greys", "CMYK": "CMYK", "Lab": "Lab"}.get(space, "another kind than RGB")
        return None, f"has a colour profile of {kind}, which is left out: {_SRGB}"
    try:
        _transform(data)
    except Exception as error:  # LittleCMS says in many ways that a profile is damaged, and may be absent.
        return None, f"has a colour profile that cannot be used ({reason(error)}), which is left out: {_SRGB}"
    return data, ""


def to_srgb(pixels: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """Bring colours to sRGB.

    Args:
        pixels: `(H, W, 3)` uint8.
        profile: What `profile_of` chose.

    Returns:
        `(H, W, 3)` uint8; `pixels` itself without a profile, or where it is sRGB's own.
    """
    if profile is None:
        return pixels
    transform = _transform(profile)
    samples = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(1, -1, 3)
    near = np.abs(_applied(transform, samples).astype(np.int16) - samples).max()
    if near <= _NEAR:
        return pixels
    result = np.empty_like(pixels)
    band = max(1, _BAND_PIXELS // max(1, pixels.shape[1]))
    for start in range(0, len(pixels), band):
        rows = slice(start, start + band)
        result[rows] = _applied(transform, pixels[rows])
    return result


def _applied(transform: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import ImageCms

    converted = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels)), transform)
    assert converted is not None
    return np.asarray(converted)


def _transform(profile: bytes) -> Any:
    """From a profile's values to sRGB's. Raises whatever Pillow raises."""
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
