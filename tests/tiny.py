"""Networks small enough to be run, trained and written to disk in a moment."""

from dataclasses import replace

from segrefiner.model.unet import UNetConfig

TINY = UNetConfig(
    model_channels=8,
    channel_mult=(1, 1),
    num_res_blocks=1,
    num_up_blocks=1,
    attention_strides=(),
    num_heads=2,
    norm_groups=4,
    stem_stride=2,
    refine_channels=4,
)
TINY_WITH_ATTENTION = replace(TINY, channel_mult=(1, 2), attention_strides=(2,))
