"""What the default pipeline can be told, as frozen values."""

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class AcceptanceConfig:
    """When a change is taken back.

    Attributes:
        keep_iou: An object whose refined mask agrees less than this with its coarse mask keeps the coarse one.
        good_iou: An agreement of the whole object, as IoU, from which on the coarse mask counts as good, and as very
            good; less for objects of under 30 pixels or so, where a pixel makes more of a difference.
        good_around: The same of the agreement around a pixel.
        confidence: That a pixel needs to change where the whole mask is very good, and where what is around the pixel
            is; each falls linearly to none where it is not good, and the larger counts.
        edges: An `edges.edge_gain` up to which so much is asked, and from which on nothing is where the offset agrees.
        offset: A `contour_offset` up to which so much is asked, and from which on nothing is where the edges agree; in
            multiples of `imprecision`.
        imprecision: How far contours of exact masks are off in the network's eyes: a pixel, or this share of the
            object's extent where that is more, for people draw large objects less exactly, too.
        surroundings: Side of the square around a pixel in which the agreement counts, as a share of the object's
            extent (the square root of its area).
        least_gain: An object whose predicted gain is less, as IoU, keeps its coarse mask; any gain is enough where
            edges and offset ask for nothing. Below zero, losses may pass, too.
    """

    keep_iou: float = 0.2
    good_iou: tuple[float, float] = (0.88, 0.93)
    good_around: tuple[float, float] = (0.6, 0.9)
    confidence: tuple[float, float] = (0.95, 1.0)
    edges: tuple[float, float] = (0.05, 0.07)
    offset: tuple[float, float] = (1.0, 1.1)
    imprecision: float = 0.0035
    surroundings: float = 0.25
    least_gain: float = 0.015


class Sampler(Enum):
    """Where the random numbers of each step come from; with one step there are none."""

    MONOTONE = "monotone"
    ANCESTRAL = "ancestral"


@dataclass(frozen=True)
class TilingConfig:
    """Where tiles follow a contour.

    Attributes:
        side: Side of a tile that the network sees, in pixels, the view's `patch` at most. Small ones follow a contour
            with fewer pixels.
        overlap: Least overlap of neighbouring tiles in tile pixels.
        finest: Photo pixels per tile pixel of the last tiles, 1 or less.
        enlarged_side: Objects whose box with context is longer, in photo pixels, get no tiles of the enlarged photo.
        finer: Tiles are skipped unless they are this many times finer than the object's view.
        finer_shrunk: The same for tiles of the photo shrunk, which finer ones follow.
        steps: Diffusion steps of the tiles, where the run has not fewer: their mask is already a good one.
        undecided: Tiles at one photo pixel per tile pixel and finer are skipped where the mean lack of confidence
            around every contour pixel is at most this: a contour that is sharp there already.
    """

    side: int = 128
    overlap: int = 24
    finest: float = 0.5
    enlarged_side: int = 768
    finer: float = 1.15
    finer_shrunk: float = 1.5
    steps: int = 1
    undecided: float = 0.25


@dataclass(frozen=True)
class PipelineConfig:
    """Choices of the default pipeline.

    Attributes:
        patch: Side of the view of a whole object that the network sees, in pixels.
        tiling: Where tiles follow a contour.
        sampler: How pixels are moved from coarse to fine.
        context: Side of an object's view, in longest sides of the object's box.
        min_side: Smallest side of an object's view in photo pixels, so that specks keep some surroundings.
        gap: Parts of a mask nearer than this, as a share of the mask's extent, are one object.
        converged: An object view takes no further step once no more than this share of its pixels still
            moves; on a GPU, where looking would cost more, all steps are taken.
        edge_radius: Of the filter that draws contours to the photo's edges, in photo pixels; 0 for none.
        edge_smoothness: Variance of colours in [0, 1] below which the filter sees no edge.
        acceptance: What a change needs to be kept; `None` keeps every change, so that the result is the network's own.
    """

    patch: int = 256
    sampler: Sampler = Sampler.MONOTONE
    context: float = 1.5
    min_side: int = 48
    gap: float = 0.05
    tiling: TilingConfig = field(default_factory=TilingConfig)
    converged: float = 0.01
    edge_radius: int = 2
    edge_smoothness: float = 1e-4
    acceptance: AcceptanceConfig | None = field(default_factory=AcceptanceConfig)

    def __post_init__(self) -> None:
        if self.tiling.side > self.patch:
            raise ValueError(f"tiles have sides of {self.tiling.side}: expected {self.patch}, the patch, at most")


DEFAULT = PipelineConfig()
