"""Watch a mask move from coarse to fine: an animation of the diffusion's states."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segrefiner import Refiner

here = Path(__file__).parent
frames = []


def keep(progress: Any) -> None:
    """Keeps what the network makes of the whole object after each step."""
    if progress.stage == "whole objects":
        frames.append(Image.fromarray((progress.state.mixed[0, 0].numpy() * 255).astype(np.uint8)))


Refiner.from_pretrained()(here / "person.jpg", here / "person_coarse.png", steps=6, on_progress=keep)
frames[0].save("states.gif", save_all=True, append_images=frames[1:], duration=400)
print(f"states.gif: {len(frames)} states")
