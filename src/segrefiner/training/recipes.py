"""The recipes that have names, the paper's and ours.

`lr` and `hr` are the paper's (arXiv 2312.12425, section 4.1, and the published configuration files), `compact` and its
five continuations made the bundled model, and `finetune` starts from trained weights. Any value of any recipe can be
replaced, by `dataclasses.replace` or by name with `overrides.with_values`.
"""

from dataclasses import replace

from ..data.coarse.masks import CoarseConfig
from ..data.crop_geometry import ViewConfig
from ..data.published_crops import PublishedViews
from ..model.unet import BASE, COMPACT
from .recipe import LinearDecay, Recipe, StepDecay

COMPACT_SECOND = Recipe(
    samples=35_200,
    large_share=1.0,
    lr=6e-4,
    decay=LinearDecay(0.6),
    coarse_timestep_share=0.5,
    pack_size=832,
    views=ViewConfig(object_share=0.5, zoom=(0.5, 2.0)),
    coarse=CoarseConfig(shifted=0.15),
)
"""The second run, from the weights of the first: large crops alone, at the scales of tiles of large photos."""

COMPACT_THIRD = Recipe(
    samples=91_200,
    large_share=0.345,
    small_batch=32,
    lr=8e-4,
    decay=LinearDecay(0.6),
    coarse_timestep_share=0.7,
    large_perfect=0.12,
    large_self_mixed=0.0,
    large_self_coarse=0.25,
    contour_weight=3.0,
    contour_width=3.0,
    start_share=0.5,
    seed=2,
    pack_size=832,
    views=ViewConfig(object_share=0.35, zoom=(0.35, 2.0), tile_share=0.5, degraded=0.2, pasted=0.2, thin=0.05),
    coarse=CoarseConfig(perfect=0.1, slight=0.3, shifted=0.12, blobs=0.2, exact_low_resolution=0.1, exact_blobs=0.1),
)
"""The third run, for the exact place of contours: crops at the scales of tiles, coarse masks that are exact in part."""

COMPACT_FOURTH = Recipe(
    model=replace(COMPACT, image_stages=6),
    samples=32_000,
    large_share=1.0,
    lr=6e-4,
    decay=LinearDecay(0.7),
    coarse_timestep_share=0.8,
    large_perfect=0.06,
    large_self_mixed=0.0,
    contour_width=3.0,
    seed=6,
    pack_size=832,
    views=ViewConfig(object_share=0.4, zoom=(0.4, 2.0), tile_share=0.5, degraded=0.15, pasted=0.1, thin=0.03),
    coarse=CoarseConfig(
        real=0.45,
        slight=0.3,
        shifted=0.15,
        low_resolution=0.25,
        blobs=0.2,
        exact_low_resolution=0.05,
        exact_blobs=0.05,
    ),
)
"""The fourth run: an encoder that knows photos is added, and coarse masks by GrabCut."""

COMPACT_FIFTH = replace(COMPACT_FOURTH, samples=26_000, lr=4e-4, image_lr=0.15, decay=LinearDecay(0.8), seed=7)
"""The fifth run: the encoder learns, too."""

COMPACT_SIXTH = replace(
    COMPACT_FIFTH,
    samples=30_000,
    image_lr=0.3,
    seed=8,
    align=True,
    coarse=replace(COMPACT_FIFTH.coarse, exact_blobs=0.1),
)
"""The sixth run: masks that lay beside their photos' edges are put right."""

COMPACT_GENERAL = Recipe(
    model=replace(COMPACT, image_stages=6, detail_channels=16),
    samples=440_000,
    large_share=0.15,
    small_batch=32,
    interleaved=True,
    lr=6e-4,
    image_lr=0.6,
    image_frozen=2,
    warmup_steps=500,
    decay=LinearDecay(0.5),
    coarse_timestep_share=1.0,
    large_perfect=0.25,
    large_self_mixed=0.0,
    small_self_coarse=0.15,
    rolled_out=0.4,
    trusted=0.35,
    large_object_share=0.7,
    contour_weight=3.0,
    contour_width=3.0,
    seed=9,
    pack_size=832,
    draws=("coarse_isnet:2", "coarse_deeplab:0.8", "coarse_grabcut:0.8", "cutout:1.2", "thin:1.5", "street:0.8"),
    views=ViewConfig(object_share=0.15, zoom=(0.4, 2.0), tile_share=0.5, degraded=0.15, pasted=0.06, thin=0.03),
    coarse=CoarseConfig(
        perfect=0.25,
        real=0.9,
        real_as_is=0.7,
        slight=0.3,
        shifted=0.1,
        low_resolution=0.15,
        blobs=0.15,
        grid=0.35,
        polygons=0.08,
        part_exact=0.15,
        exact_low_resolution=0.04,
        exact_blobs=0.06,
    ),
)
"""A long run on masks as users hold them: of strong and of promptable networks, of annotators, exact and thin ones."""

FINETUNE = replace(
    COMPACT_THIRD,
    samples=16_000,
    large_share=1.0,
    lr=2e-4,
    warmup_steps=200,
    validate_every=250,
    seed=0,
)
"""A short run from trained weights on photos of one's own; half of its result are the weights that it started from."""

LR = Recipe(
    model=BASE,
    samples=960_000,
    large_share=1.0,
    group=1,
    lr=4e-4,
    warmup_steps=0,
    decay=StepDecay(),
    weight_decay=0.0,
    clip_norm=None,
    ema_decay=0.0,
    precision="fp32",
    coarse_timestep_share=0.0,
    large_perfect=0.0,
    large_self_mixed=0.0,
    contour_weight=0.0,
    validate_every=5000,
    views=PublishedViews(),
    coarse=CoarseConfig(perfect=0.0, published=1.0),
)
"""The paper's low-resolution model: LVIS objects, eight a step, 120,000 steps, the rate halved after 80,000 and
100,000."""

HR = replace(
    LR,
    samples=640_000,
    large_batch=16,
    decay=StepDecay(at=(0.5, 0.875)),
    views=PublishedViews(patches=True),
)
"""The paper's high-resolution model, from `lr`: DIS-5K and ThinObject-5K, an object view and a patch of eight photos a
step, 40,000 steps, the rate halved at 20,000 and 35,000."""

RECIPES = {
    "compact": Recipe(),
    "compact-second": COMPACT_SECOND,
    "compact-third": COMPACT_THIRD,
    "compact-fourth": COMPACT_FOURTH,
    "compact-fifth": COMPACT_FIFTH,
    "compact-sixth": COMPACT_SIXTH,
    "compact-general": COMPACT_GENERAL,
    "finetune": FINETUNE,
    "lr": LR,
    "hr": HR,
}
