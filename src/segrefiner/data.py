"""Training photos: a folder packed into one small file, and batches of crops cut from it on the training device.

A data folder has `images/NAME.jpg`, `masks/NAME.png` (the truth) and, where there is one, `coarse*/NAME.png`, a real
coarse mask. `pack_folder` writes it as one safetensors file of uint8 arrays: the encoded pictures, one after another.
`PackedPhotos` decodes it once, keeps every photo as uint8 on the device and cuts batches by tensor operations alone.
"""

import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.ndimage import distance_transform_edt
from torch import Generator, Tensor

from .augment import add_thin, change_colours, degrade, paste
from .coarse import CoarseConfig, coarse_masks
from .errors import InputError
from .io import read_image, read_mask
from .output import atomic_write
from .unet import IMAGE_MEAN

PACK_FORMAT = "segrefiner-pack-1"
PACK_SIZE = 384
DISTANCE_RANGE = 64.0
LEVELS = 3
_PHOTO_QUALITY = 80
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_PARTS = ("photo", "truth", "truth_distance", "real", "real_distance")


def signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance `(H, W)` float32 in pixels of every pixel centre to the mask's contour, positive inside.

    Without a contour it is infinite: positive for a full mask, negative for an empty one.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, math.inf if mask.any() else -math.inf, np.float32)
    inside = distance_transform_edt(mask) - 0.5
    outside = distance_transform_edt(~mask) - 0.5
    return np.where(mask, inside, -outside).astype(np.float32)


def encode_distance(distance: NDArray[np.float32], reach: float = DISTANCE_RANGE) -> NDArray[np.uint8]:
    """Signed distance → uint8, companded by a square root so that it is finest at the contour; saturates at ±reach."""
    companded = np.sign(distance) * np.sqrt(np.minimum(np.abs(distance), reach) / reach)
    return np.clip(np.round(128 + 127 * companded), 1, 255).astype(np.uint8)


def decode_distance(encoded: Tensor, reach: float = DISTANCE_RANGE) -> Tensor:
    """The inverse of `encode_distance` for a float tensor of any shape."""
    companded = (encoded - 128) / 127
    return reach * companded * companded.abs()


def distance_reach(size: int) -> float:
    """Where the distances of photos of this long side saturate, in pixels."""
    return max(DISTANCE_RANGE, size / 6)


@dataclass(frozen=True)
class PhotoFiles:
    """The files of one photo; `coarse` is `None` where there is no real coarse mask."""

    name: str
    image: Path
    mask: Path
    coarse: Path | None


def find_photos(folder: Path) -> list[PhotoFiles]:
    """The photos of a data folder, sorted by name. Raises `InputError` for another layout or a missing mask."""
    images, masks = folder / "images", folder / "masks"
    for part in (images, masks):
        if not part.is_dir():
            raise InputError(f"{folder} has no folder {part.name}/: expected images/, masks/ and optionally coarse*/")
    coarse_folders = sorted(p for p in folder.glob("coarse*") if p.is_dir())
    photos, missing = [], []
    for image in sorted(p for p in images.iterdir() if p.suffix.lower() in _SUFFIXES):
        mask = masks / f"{image.stem}.png"
        if not mask.is_file():
            missing.append(image.name)
        coarse = next((p for f in coarse_folders if (p := f / f"{image.stem}.png").is_file()), None)
        photos.append(PhotoFiles(image.stem, image, mask, coarse))
    if missing:
        raise InputError(f"{masks} lacks the masks of {len(missing)} photos: {', '.join(missing[:10])}")
    if not photos:
        raise InputError(f"{images} holds no photo: expected files that end in {', '.join(_SUFFIXES)}")
    return photos


def _encoded(picture: Image.Image, **options: object) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    picture.save(buffer, **options)  # type: ignore[arg-type]
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _encode_mask(mask: NDArray[np.bool_], reach: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    distance = Image.fromarray(encode_distance(signed_distance(mask), reach)).convert("RGB")
    # Lossy distances are a seventh of the size; their sign comes from the lossless mask when they are decoded.
    return _encoded(Image.fromarray(mask), format="PNG", optimize=True), _encoded(
        distance, format="WEBP", quality=80, method=4
    )


def _shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize(size, Image.Resampling.BOX)) >= 128


def _pack_photo(photo: PhotoFiles, size: int) -> list[NDArray[np.uint8]]:
    image = read_image(photo.image)
    height, width = image.shape[:2]
    scale = min(1.0, size / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image).resize(small, Image.Resampling.LANCZOS)
    parts = [_encoded(picture, format="WEBP", quality=_PHOTO_QUALITY, method=4)]
    for path in (photo.mask, photo.coarse):
        if path is None:
            parts += [np.empty(0, np.uint8)] * 2
            continue
        mask = read_mask(path)
        if mask.shape != (height, width):
            raise InputError(
                f"{path} is {mask.shape[1]}x{mask.shape[0]} but its photo is {width}x{height}: expected the same size"
            )
        parts += _encode_mask(_shrunk(mask, small), distance_reach(size))
    return parts


def pack_folder(
    folder: Path,
    target: Path,
    *,
    size: int = PACK_SIZE,
    progress: Callable[[Iterable[PhotoFiles]], Iterable[PhotoFiles]] = iter,
) -> int:
    """Writes a data folder as one pack.

    Args:
        folder: The data folder.
        target: The file to write, replaced only when it is complete.
        size: Photos are shrunk to this long side in pixels; smaller ones are kept as they are.
        progress: Wraps the iteration, for a progress bar.

    Returns:
        The number of photos.

    Raises:
        InputError: Where the folder's layout or a file is not as expected.
    """
    photos = find_photos(folder)
    columns: dict[str, list[NDArray[np.uint8]]] = {part: [] for part in _PARTS}
    for photo in progress(photos):
        for part, data in zip(_PARTS, _pack_photo(photo, size), strict=True):
            columns[part].append(data)
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, blobs in columns.items():
        arrays[part] = np.concatenate(blobs) if blobs else np.empty(0, np.uint8)
        arrays[f"{part}_ends"] = np.cumsum([len(b) for b in blobs], dtype=np.int64)
    metadata = {"format": PACK_FORMAT, "size": str(size), "names": json.dumps([p.name for p in photos])}
    atomic_write(target, lambda file: file.write(save(arrays, metadata)))
    return len(photos)


def _decode(blob: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(blob.tobytes())))


def _half(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every channel of `(H, W, C)` shrunk by two by the area mean."""
    return np.stack([np.asarray(Image.fromarray(c).reduce(2)) for c in np.moveaxis(planes, -1, 0)], axis=-1)


def _photo_levels(parts: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """One photo's `(H, W, 5)` planes (RGB, truth's and real coarse mask's distance) at full, half and quarter size."""
    image = _decode(parts[0])[..., :3]
    planes = [image]
    for mask_blob, distance_blob in (parts[1:3], parts[3:5]):
        if not len(mask_blob):
            planes.append(np.zeros((*image.shape[:2], 1), np.uint8))
            continue
        mask = _decode(mask_blob)
        distance = _decode(distance_blob)[..., 0]
        planes.append(np.where(mask, np.maximum(distance, 129), np.minimum(distance, 127))[..., None])
    levels = [np.concatenate(planes, axis=-1).astype(np.uint8)]
    while len(levels) < LEVELS:
        levels.append(_half(levels[-1]))
    return levels


@dataclass(frozen=True)
class ViewConfig:
    """How crops are drawn.

    Attributes:
        object_share: Share of crops that show the whole object; the others are centred on its contour.
        context: Range of the side of an object crop, in longest sides of the object's box.
        zoom: Range of photo pixels per crop pixel of contour crops, drawn log-uniformly.
        tile_share: Share of contour crops that lie on the pixel grid at one of `tile_scales`, as tiles do at inference.
        tile_scales: In photo pixels per crop pixel.
        rotation: Largest rotation in radians, for a quarter of the crops.
        colour: Strength of brightness, contrast and saturation changes.
        degraded: Share of crops with blur, and of those with noise.
        pasted: Share of crops whose object lies on another photo.
        thin: Share of crops with thin structures as their object.
    """

    object_share: float = 0.55
    context: tuple[float, float] = (1.1, 2.0)
    zoom: tuple[float, float] = (0.5, 1.4)
    tile_share: float = 0.0
    tile_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    rotation: float = 0.35
    colour: float = 0.2
    degraded: float = 0.0
    pasted: float = 0.0
    thin: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Crops for training.

    Attributes:
        image: `(B, 3, S, S)` float, RGB, 0-255.
        fine: `(B, 1, S, S)` float in {0, 1}, the truth.
        coarse: `(B, 1, S, S)` float in {0, 1}.
        distance: `(B, 1, S, S)` float, signed distance to the truth's contour in crop pixels.
    """

    image: Tensor
    fine: Tensor
    coarse: Tensor
    distance: Tensor


class PackedPhotos:
    """A pack, decoded, as uint8 on a device.

    Args:
        path: The file that `pack_folder` wrote.
        device: Where photos and batches live.

    Raises:
        InputError: The file is not a pack.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.device = device
        try:
            with safe_open(path, framework="numpy") as pack:
                metadata = pack.metadata() or {}
                if metadata.get("format") != PACK_FORMAT:
                    raise InputError(f"{path} is no pack of photos: make one with `segrefiner data pack FOLDER {path}`")
                self.names: list[str] = json.loads(metadata["names"])
                columns = [np.split(pack.get_tensor(part), pack.get_tensor(f"{part}_ends")[:-1]) for part in _PARTS]
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read as a pack of photos: {error}") from error
        self._reach = distance_reach(int(metadata["size"]))
        with ThreadPoolExecutor() as pool:
            photos = list(pool.map(_photo_levels, zip(*columns, strict=True)))
        self._index(photos)
        self.has_real = torch.tensor([len(blob) > 0 for blob in columns[3]], device=device)

    def _index(self, photos: list[list[NDArray[np.uint8]]]) -> None:
        arrays = [level for photo in photos for level in photo]
        self._pixels = torch.from_numpy(np.concatenate([a.reshape(-1, 5) for a in arrays])).to(self.device)
        sizes = np.array([a.shape[:2] for a in arrays]).reshape(len(photos), LEVELS, 2)
        starts = np.cumsum([0] + [a.shape[0] * a.shape[1] for a in arrays[:-1]]).reshape(len(photos), LEVELS)
        self._sizes = torch.from_numpy(sizes).to(self.device)
        self._starts = torch.from_numpy(starts).to(self.device)
        boxes, contours = zip(*(_box_and_contour(photo[0][..., 3]) for photo in photos), strict=True)
        self._boxes = torch.from_numpy(np.stack(boxes)).to(self.device)
        self._contours = torch.from_numpy(np.stack(contours)).to(self.device)

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, indices: Tensor, size: int, generator: Generator, views: ViewConfig, coarse: CoarseConfig) -> Batch:
        """Cuts, augments and perturbs one crop of each photo.

        Args:
            indices: `(B,)` int64.
            size: Side S of the crops in pixels.
            generator: Source of all draws, on this object's device.
            views: How crops are drawn.
            coarse: How coarse masks are made.
        """
        centre, side, tile = self._draw_views(indices, size, generator, views)
        planes, inside, scale = self._cut(indices, centre, side, tile, size, generator, views)
        image = change_colours(planes[:, :3], generator, views.colour)
        distances = torch.where(inside, decode_distance(planes[:, 3:], self._reach), -self._reach) / scale
        truth, real = distances.split(1, dim=1)
        has_real = self.has_real[indices]
        if views.pasted:
            image = paste(image, truth, scale, generator, views.pasted)
        if views.thin:
            image, truth, thin = add_thin(image, truth, scale, generator, views.thin)
            truth = torch.where(inside, truth, -self._reach)
            has_real = has_real & ~thin
        if views.degraded:
            image = degrade(image, generator, views.degraded)
        image = torch.where(inside, image, image.new_tensor(IMAGE_MEAN).view(1, 3, 1, 1))
        mask = coarse_masks(truth, real, has_real, generator, coarse)
        return Batch(image, (truth > 0).float(), mask * inside, truth)

    def _draw_views(
        self, indices: Tensor, size: int, generator: Generator, views: ViewConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Centres `(B, 2)` (y, x) and sides `(B, 1)` of square crops, in pixels of the photos; which ones are tiles."""
        batch = len(indices)
        draw = torch.rand(batch, 6, generator=generator, device=self.device)
        box = self._boxes[indices].float()
        extent = (box[:, 2:] - box[:, :2]).amax(dim=1, keepdim=True)
        object_side = extent * (views.context[0] + (views.context[1] - views.context[0]) * draw[:, :1])
        low, high = (math.log(z) for z in views.zoom)
        contour_side = size * (low + (high - low) * draw[:, :1]).exp()
        whole = draw[:, 2:3] < views.object_share
        tile = ~whole & (draw[:, 5:] < views.tile_share)
        if views.tile_share:
            scales = torch.tensor(views.tile_scales, device=self.device)
            which = (draw[:, 5:] / views.tile_share * len(scales)).long().clamp(max=len(scales) - 1)
            contour_side = torch.where(tile, size * scales[which], contour_side)
        pick = (draw[:, 1] * self._contours.shape[1]).long()
        contour_centre = self._contours[indices, pick].float()
        limits = self._sizes[indices, 0].float()
        object_side = torch.minimum(object_side, limits.amax(dim=1, keepdim=True))
        side = torch.where(whole, object_side, contour_side).clamp(min=size / 8)
        centre = torch.where(whole, (box[:, :2] + box[:, 2:]) / 2, contour_centre)
        centre = centre + (draw[:, 3:5] - 0.5) * side * torch.where(whole, 0.15, 0.6)
        # As at inference, a crop is shifted into the photo, and centred on it where it is the larger one.
        half = torch.minimum(side, limits) / 2
        centre = torch.maximum(half, torch.minimum(centre, limits - half))
        # Even centres put a tile's pixels on those of the photo, of its half and of its double size.
        return torch.where(tile, (centre / 2).floor() * 2, centre), side, tile[:, 0]

    def _cut(
        self,
        indices: Tensor,
        centre: Tensor,
        side: Tensor,
        tile: Tensor,
        size: int,
        generator: Generator,
        views: ViewConfig,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bilinear samples `(B, 5, S, S)` of the fitting level, which lie in the photo, photo pixels per crop pixel."""
        batch = len(indices)
        draw = torch.rand(batch, 5, generator=generator, device=self.device)
        scale = side / size
        level = (scale.log2() + 0.3).floor().clamp(0, LEVELS - 1).long()[:, 0]
        angle = torch.where((draw[:, 0] < 0.25) & ~tile, (2 * draw[:, 1] - 1) * views.rotation, 0.0)
        stretch = torch.where(tile, 1.0, ((draw[:, 2] - 0.5) * 0.3).exp())
        flip = torch.where(draw[:, 3] < 0.5, -1.0, 1.0)
        offsets = (torch.arange(size, device=self.device) + 0.5 - size / 2)[None] * scale
        down, right = offsets[:, :, None], (offsets * (stretch * flip)[:, None])[:, None, :]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        shrink = (0.5**level)[:, None, None]
        y = (centre[:, :1, None] + down * cos + right * sin) * shrink - 0.5
        x = (centre[:, 1:, None] - down * sin + right * cos) * shrink - 0.5
        sizes = self._sizes[indices, level]
        height, width = sizes[:, 0, None, None], sizes[:, 1, None, None]
        inside = (y > -0.5) & (y < height - 0.5) & (x > -0.5) & (x < width - 0.5)
        start = self._starts[indices, level][:, None, None]
        y, x = y.clamp(min=0), x.clamp(min=0)
        y0, x0 = torch.minimum(y.long(), height - 1), torch.minimum(x.long(), width - 1)
        y1, x1 = torch.minimum(y0 + 1, height - 1), torch.minimum(x0 + 1, width - 1)
        fy, fx = (y - y0).clamp(0, 1)[..., None], (x - x0).clamp(0, 1)[..., None]

        def pixels(rows: Tensor, columns: Tensor) -> Tensor:
            return self._pixels[(start + rows * width + columns).reshape(-1)].view(batch, size, size, 5).float()

        top = torch.lerp(pixels(y0, x0), pixels(y0, x1), fx)
        bottom = torch.lerp(pixels(y1, x0), pixels(y1, x1), fx)
        planes = torch.lerp(top, bottom, fy).permute(0, 3, 1, 2)
        return planes, inside[:, None], scale[:, :, None, None]


_CONTOUR_POINTS = 256


def _box_and_contour(encoded: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Box `(y0, x0, y1, x1)` of a truth and evenly chosen points `(256, 2)` of its contour."""
    mask = encoded > 128
    if not mask.any():
        mask = np.ones_like(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    contour = np.argwhere(np.abs(encoded.astype(np.int16) - 128) <= 17)
    if not len(contour):
        contour = np.argwhere(mask)
    return box, contour[np.linspace(0, len(contour) - 1, _CONTOUR_POINTS).astype(np.int64)]


def shuffled(count: int, epoch: int, seed: int) -> Tensor:
    """The order of an epoch: a permutation `(count,)` that depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)
