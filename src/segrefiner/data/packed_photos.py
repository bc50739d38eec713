"""Training photos in memory, and batches of crops cut from them on the training device.

A pack is decoded once, every photo stays as uint8 on the device, and crops are cut by tensor operations alone.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from ..model.unet import IMAGE_MEAN
from .augment import add_thin, change_colours, degrade, paste
from .coarse.masks import CoarseConfig, coarse_masks
from .crop_geometry import LEVELS, CropGeometry, Outlines, ViewConfig, draw_geometry
from .packs import Pack, decode_distance, distance_reach, read_pack


def _decode(blob: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(blob.tobytes())))


def _size(blob: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of an encoded picture, which is not decoded for it."""
    width, height = Image.open(io.BytesIO(blob.tobytes())).size
    return height, width


def _half(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every channel of `(H, W, C)` shrunk by two by the area mean."""
    return np.stack([np.asarray(Image.fromarray(c).reduce(2)) for c in np.moveaxis(planes, -1, 0)], axis=-1)


def _photo(blob: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo `(H, W, 3)`, RGB."""
    return _decode(blob)[..., :3]


def _encoded_distance(mask_blob: NDArray[np.uint8], distance_blob: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The encoded signed distance `(H, W, 1)` of a mask, from the mask and its lossy distance."""
    mask, distance = _decode(mask_blob), _decode(distance_blob)[..., 0]
    return np.where(mask, np.maximum(distance, 129), np.minimum(distance, 127)).astype(np.uint8)[..., None]


class _Planes:
    """Pictures of different sizes one after another in one tensor, each at full, half and quarter size.

    The memory is taken once and filled picture by picture: decoded pictures are several gigabytes.

    Args:
        sizes: `(pictures, 2)` int64, heights and widths.
        channels: Number of channels of every picture.

    Attributes:
        pixels: `(n, channels)` uint8, the pixels of all levels of all pictures.
        sizes: `(pictures, LEVELS, 2)` int64, height and width of each level.
        starts: `(pictures, LEVELS)` int64, the first pixel of each level.
    """

    def __init__(self, sizes: NDArray[np.int64], channels: int) -> None:
        # Sides are halved and rounded up, as `_half` does.
        self.sizes = np.stack([-(-sizes // 2**level) for level in range(LEVELS)], axis=1)
        ends = self.sizes.prod(axis=2).cumsum()
        self.starts = np.concatenate([[0], ends[:-1]]).reshape(-1, LEVELS)
        self.pixels = torch.empty(int(ends[-1]), channels, dtype=torch.uint8)

    def put(self, index: int, picture: NDArray[np.uint8]) -> None:
        """Fill in one picture `(H, W, C)`."""
        for start in self.starts[index]:
            flat = torch.from_numpy(np.array(picture)).flatten(0, 1)
            self.pixels[start : start + len(flat)] = flat
            picture = _half(picture)


@dataclass(frozen=True)
class CropBatch:
    """Crops for training.

    Attributes:
        image: `(B, 3, S, S)` float, RGB, 0-255.
        fine: `(B, 1, S, S)` float in {0, 1}, the truth.
        coarse: `(B, 1, S, S)` float in {0, 1}.
        distance: `(B, 1, S, S)` float, signed distance to the truth's contour in crop pixels.
        failures: Names of photos that could not be read for it, and why.
    """

    image: Tensor
    fine: Tensor
    coarse: Tensor
    distance: Tensor
    failures: tuple[tuple[str, str], ...] = ()


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
        pack = read_pack(path)
        self.names, self.coarse_kinds = pack.names, pack.coarse_kinds
        self._reach = distance_reach(pack.size)
        # Samples share photos and truths: each is decoded and held once.
        with ThreadPoolExecutor() as pool:
            photos, photo_of = _photos(pool, pack)
            truths, truth_of, outlines = _masks(pool, pack, "truth")
            reals, real_of, _ = _masks(pool, pack, "real")
        self._pixels = {part: p.pixels.to(device) for part, p in zip(_PLANES, (photos, truths, reals), strict=True)}
        self._sizes = torch.from_numpy(photos.sizes[photo_of]).to(device)
        self.has_real = torch.from_numpy(real_of >= 0).to(device)
        # A sample without a real coarse mask points at any, which nothing looks at.
        places = photos.starts[photo_of], truths.starts[truth_of], reals.starts[real_of.clip(min=0)]
        self._starts = {part: torch.from_numpy(s).to(device) for part, s in zip(_PLANES, places, strict=True)}
        outlined = [torch.from_numpy(np.stack(part)[truth_of]).to(device) for part in zip(*outlines, strict=True)]
        self._boxes, self._contours = outlined

    def __len__(self) -> int:
        return len(self.names)

    def photo(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_] | None]:
        """A photo `(H, W, 3)` uint8 as it is in the pack, its truth `(H, W)` bool and its real coarse mask or None."""
        height, width = self._sizes[index, 0].tolist()

        def plane(part: str) -> NDArray[np.uint8]:
            start = int(self._starts[part][index, 0])
            pixels: NDArray[np.uint8] = self._pixels[part][start : start + height * width].cpu().numpy()
            return pixels.reshape(height, width, -1)

        coarse = plane("real")[..., 0] > 128 if self.has_real[index] else None
        return plane("photo").copy(), plane("truth")[..., 0] > 128, coarse

    def batch(
        self, indices: Tensor, size: int, generator: Generator, views: ViewConfig, coarse: CoarseConfig
    ) -> CropBatch:
        """Cuts, augments and perturbs one crop of each photo.

        Args:
            indices: `(B,)` int64, numbers of the photos, on this object's device.
            size: Side S of the crops in pixels.
            generator: Source of all draws, on this object's device.
            views: How crops are drawn.
            coarse: How coarse masks are made.

        Returns:
            The crops, on this object's device.
        """
        outlines = Outlines(self._sizes[indices, 0], self._boxes[indices], self._contours[indices])
        geometry = draw_geometry(outlines, size, generator, views)
        planes, inside = self._sample(indices, geometry, size)
        scale = geometry.scale[:, :, None, None]
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
        return CropBatch(image, (truth > 0).float(), mask * inside, truth)

    def _sample(self, indices: Tensor, geometry: CropGeometry, size: int) -> tuple[Tensor, Tensor]:
        """Samples the photos' pixels where crops lie, bilinearly, each in the level that fits it.

        Returns:
            `(B, 5, S, S)` float: photo, encoded distances of truth and real coarse mask; and `(B, 1, S, S)` bool: which
            of them lie in the photo. The others repeat its border.
        """
        level = geometry.level
        y, x = geometry.positions(size)
        height, width = self._sizes[indices, level][:, :, None, None].unbind(dim=1)
        inside = (y > -0.5) & (y < height - 0.5) & (x > -0.5) & (x < width - 0.5)
        starts = {part: start[indices, level][:, None, None] for part, start in self._starts.items()}
        has_real = self.has_real[indices][:, None, None]
        y, x = y.clamp(min=0), x.clamp(min=0)
        y0, x0 = torch.minimum(y.long(), height - 1), torch.minimum(x.long(), width - 1)
        y1, x1 = torch.minimum(y0 + 1, height - 1), torch.minimum(x0 + 1, width - 1)
        fy, fx = (y - y0).clamp(0, 1)[..., None], (x - x0).clamp(0, 1)[..., None]

        def pixels(rows: Tensor, columns: Tensor) -> Tensor:
            places = rows * width + columns
            where = {**dict.fromkeys(_PLANES, places), "real": torch.where(has_real, places, 0)}
            return torch.cat([self._pixels[p][starts[p] + where[p]] for p in _PLANES], dim=-1).float()

        top = torch.lerp(pixels(y0, x0), pixels(y0, x1), fx)
        bottom = torch.lerp(pixels(y1, x0), pixels(y1, x1), fx)
        planes = torch.lerp(top, bottom, fy).permute(0, 3, 1, 2)
        return planes, inside[:, None]


_PLANES = ("photo", "truth", "real")
"""Parts of a sample's pixels, in the order of their channels."""


def _photos(pool: ThreadPoolExecutor, pack: Pack) -> tuple[_Planes, NDArray[np.int64]]:
    """The photos of a pack, and which of them each sample has."""
    blobs = pack.blobs["photo"]
    planes = _Planes(np.array([_size(blob) for blob in blobs]), 3)
    list(pool.map(lambda index: planes.put(index, _photo(blobs[index])), range(len(blobs))))
    return planes, pack.index["photo"]


def _masks(
    pool: ThreadPoolExecutor, pack: Pack, part: str
) -> tuple[_Planes, NDArray[np.int64], list[tuple[NDArray[np.int64], NDArray[np.int64]]]]:
    """The encoded distances of a part's different masks, which each sample has (-1 for none), boxes and contours."""
    pairs = np.stack([pack.index[part], pack.index[f"{part}_distance"]], axis=1)
    there = pairs[:, 0] >= 0
    which = np.full(len(pairs), -1, np.int64)
    if not there.any():
        return _Planes(np.ones((1, 2), np.int64), 1), which, []
    different, which[there] = np.unique(pairs[there], axis=0, return_inverse=True)
    masks, distances = pack.blobs[part], pack.blobs[f"{part}_distance"]
    planes = _Planes(np.array([_size(masks[mask]) for mask, _ in different]), 1)

    def put(index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        mask, distance = different[index]
        encoded = _encoded_distance(masks[mask], distances[distance])
        planes.put(index, encoded)
        return _box_and_contour(encoded[..., 0])

    return planes, which, list(pool.map(put, range(len(different))))


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
