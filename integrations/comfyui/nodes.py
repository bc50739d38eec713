"""The node *Refine Mask*: images and coarse masks in, masks that follow the objects' edges out.

SegRefiner is imported when the node first runs. Nothing is installed or downloaded, and PyTorch stays ComfyUI's own.
"""

from functools import cache
from typing import Any

import torch
from comfy_api.latest import ComfyExtension, io

NO_LIMIT, AS_THE_MODEL_LIKES = 0, 0
"""What a widget, which always holds a number, has for an option that is left out."""

INSTALL = "pip install --no-deps segrefiner"


class RefineMask(io.ComfyNode):
    """Refines coarse masks of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the node takes and gives."""
        return io.Schema(
            node_id="SegRefinerRefineMask",
            display_name="Refine Mask (SegRefiner)",
            category="mask",
            description=(
                "Makes a coarse mask follow the object's edges. One mask goes with each image. A single mask is used "
                "for all images, and several masks go with a single image."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The images."),
                io.Mask.Input("mask", tooltip="Their coarse masks, of the images' size: one for each, or one for all."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05,
                    tooltip="Less makes surer changes only; 0 changes nothing.",
                ),
                io.Int.Input(
                    "max_shift", default=NO_LIMIT, min=0, max=10_000, step=1,
                    tooltip="How many pixels the edge may move at most; 0 for no limit.",
                ),
                io.Int.Input(
                    "steps", default=AS_THE_MODEL_LIKES, min=0, max=6, step=1,
                    tooltip="Diffusion steps; 0 for what suits the model best.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**32 - 1, control_after_generate=True,
                    tooltip="The same number gives the same masks.",
                ),
                io.Combo.Input(
                    "device", options=["auto", "cpu"], default="auto",
                    tooltip="Where it computes: auto takes the GPU where there is one.",
                ),
            ],
            outputs=[
                # Older releases of ComfyUI load no node that has one name on both sides.
                io.Mask.Output("refined_mask", display_name="mask", tooltip="0 and 1."),
                io.Mask.Output("soft_mask", display_name="soft mask", tooltip="How sure each pixel is, from 0 to 1."),
                io.String.Output("report", display_name="report", tooltip="What changed, one line for each mask."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        mask: torch.Tensor,
        strength: float,
        max_shift: int,
        steps: int,
        seed: int,
        device: str,
    ) -> io.NodeOutput:
        """Refines a batch.

        Args:
            image: `(B, H, W, 3 or 4)` float, 0 to 1; what is transparent is seen as its colours are.
            mask: `(N, H, W)`, `(N, 1, H, W)` or `(H, W)` float, 0 to 1; N is B, or one of both is 1.
            strength: As in the schema; the others as well.
            max_shift: In pixels.
            steps: 1 to 6.
            seed: For all masks.
            device: "auto" or "cpu".

        Returns:
            Masks `(M, H, W)` float32 of 0 and 1, the same with probabilities, and text; M is the larger of B and N.

        Raises:
            InputError: Images and masks do not go together, or have numbers that are none.
            ImportError: SegRefiner is not installed.
        """
        refiner = _refiner(device)
        pairs = paired(image, mask)
        results = list(
            refiner.many(
                pairs,
                seed=seed,
                strength=strength,
                steps=steps if steps != AS_THE_MODEL_LIKES else None,
                max_shift=max_shift if max_shift != NO_LIMIT else None,
            )
        )
        hard = torch.stack([torch.from_numpy(result.mask) for result in results]).float()
        soft = torch.stack([torch.from_numpy(result.probability) for result in results]).float()
        report = "\n".join(f"{number}: {result.report}" for number, result in enumerate(results, 1))
        return io.NodeOutput(hard.to(mask.device), soft.to(mask.device), report)


class SegRefinerExtension(ComfyExtension):
    """The nodes of this folder."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All of them."""
        return [RefineMask]


async def comfy_entrypoint() -> SegRefinerExtension:
    """What ComfyUI calls when it loads this folder."""
    return SegRefinerExtension()


def paired(image: torch.Tensor, mask: torch.Tensor) -> list[tuple[Any, Any]]:
    """Arrays of each image with its mask.

    As many masks as images go together in their order. A single mask goes with every image, a single image with every
    mask. Other numbers are refused, since nobody knows which belong together.

    Args:
        image: `(B, H, W, C)` float.
        mask: `(N, H, W)`, `(N, 1, H, W)` or `(H, W)` float.

    Returns:
        `(H, W, 3)` uint8 and `(H, W)` float32 each; an image that several masks share is one and the same array.
    """
    from segrefiner import ImageError, InputError, MaskError, SizeMismatchError

    if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.numel():
        raise ImageError(f"image has the shape {tuple(image.shape)}: expected (batch, height, width, 3)")
    if mask.ndim == 2:
        mask = mask[None]
    elif mask.ndim == 4 and mask.shape[1] == 1:  # Some nodes keep the channel of the network that made the mask.
        mask = mask[:, 0]
    if mask.ndim != 3 or not mask.numel():
        raise MaskError(f"mask has the shape {tuple(mask.shape)}: expected (batch, height, width)")
    if image.shape[1:3] != mask.shape[1:]:
        (height, width), (mask_height, mask_width) = image.shape[1:3], mask.shape[1:]
        raise SizeMismatchError(
            f"the mask is {mask_width}x{mask_height}, the image {width}x{height}: connect a mask of this image; Load "
            "Image gives an empty one of 64x64 where the picture has no transparency"
        )
    images, masks = len(image), len(mask)
    if images != masks and 1 not in (images, masks):
        raise InputError(f"{images} images and {masks} masks: expected as many of both, or one of either")
    for name, tensor, error in (("image", image, ImageError), ("mask", mask, MaskError)):
        if not torch.isfinite(tensor).all():
            raise error(f"the {name} has numbers that are none (NaN or infinite): check the node that made it")
    pixels = [(one[..., :3].float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for one in image]
    coarse = [one.float().clamp(0, 1).cpu().numpy() for one in mask]
    count = max(images, masks)
    return list(zip(pixels * (count if images == 1 else 1), coarse * (count if masks == 1 else 1), strict=True))


@cache
def _refiner(device: str) -> Any:
    """The bundled model, loaded once for each device."""
    try:
        from segrefiner import Refiner
    except ImportError as error:
        # With its dependencies, pip might put another PyTorch in the place of ComfyUI's.
        raise ImportError(f"SegRefiner is not installed in ComfyUI's Python ({error}): run there: {INSTALL}") from error
    return Refiner.from_pretrained(device=device)
