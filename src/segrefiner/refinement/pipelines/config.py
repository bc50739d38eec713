"""What the default pipeline can be told, as frozen values."""

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class AcceptanceConfig:
    """When a change is taken back.

    Attributes:
        keep_iou: An object whose refined mask agrees less than this with its coarse mask keeps the coarse one.
        trust: In the coarse mask: how likely a change has to be right, in [0, 1], by `acceptance_model`.
        least_gain: An object keeps its coarse mask where the pixels that are rather right than wrong, by the same
            model, are not more than this share of it.
    """

    keep_iou: float = 0.2
    trust: float = 0.5
    least_gain: float = 0.01


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
