"""SegRefiner's node for ComfyUI, which calls `comfy_entrypoint`."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
