"""The best and the worst refinements of a data folder, to be looked at.

    python -m benchmarks.quality.gallery DATA -o gallery.jpg [--count 5] [--kinds real] [--only CCP,car208]

DATA as for `quality/methods.py`. Each row of the picture shows the errors of the coarse and of the refined mask over
the photo in greys, red where a mask has too much and blue where it lacks something; worst first, then the best. Their
figures are printed in the same order.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

from benchmarks.common.cases import RefinedCase, cases, chosen
from benchmarks.common.coarse_kinds import EVERY_KIND, Photo
from benchmarks.common.options import OUTPUT, names_of
from segrefiner import Refiner
from segrefiner.data.layouts import find_photos
from segrefiner.evaluation.report import case_window, show_errors

PANEL = 360
CAPTION = 22


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", type=OUTPUT, required=True, help="The picture.")
@click.option("--count", default=5, show_default=True, help="How many of the worst and of the best.")
@click.option("--photos", default=0, show_default=True, help="How many to refine, evenly spread; 0 for all.")
@click.option("--kinds", default="real", show_default=True, callback=names_of(EVERY_KIND))
@click.option("--only", default="", help="Photos whose names start with one of these, separated by commas.")
@click.option("--model", help="As for `segrefiner refine`.")
@click.option("--seed", default=0, show_default=True)
def main(
    data: Path, output: Path, count: int, photos: int, kinds: list[str], only: str, model: str | None, seed: int
) -> None:
    """Refine, and draw the worst and the best."""
    refiner = Refiner.from_pretrained(model)
    prefixes = tuple(only.split(",")) if only else ("",)
    subjects = chosen([photo for photo in find_photos(data) if photo.name.startswith(prefixes)], photos)
    done = []
    for photo in track(subjects, "refining", console=Console(stderr=True)):
        for case in cases([photo], kinds, seed):
            mask = refiner(case.image, case.coarse, seed=seed).mask
            done.append(RefinedCase.of(case, mask))
    if not done:
        raise click.ClickException(f"{data} has no such photo with a coarse mask")
    done.sort(key=lambda refined: refined.gain)
    shown = done[:count] + done[max(count, len(done) - count) :]
    for refined in shown:
        print(refined)
    Image.fromarray(np.concatenate([_row(refined) for refined in shown])).save(output, quality=85)
    print(output)


def _row(refined: RefinedCase) -> Photo:
    case = refined.case
    window = case_window(case.truth | case.coarse | refined.mask)
    row = Image.new("RGB", (2 * PANEL + 8, PANEL + CAPTION), "white")
    for left, mask in ((0, case.coarse), (PANEL + 8, refined.mask)):
        panel = Image.fromarray(show_errors(case.image[window], mask[window], case.truth[window]))
        scale = PANEL / max(panel.size)
        panel = panel.resize((round(panel.width * scale), round(panel.height * scale)), Image.Resampling.BICUBIC)
        row.paste(panel, (left, CAPTION))
    ImageDraw.Draw(row).text((2, 3), str(refined), fill="black", font=ImageFont.load_default(size=14))
    return np.asarray(row)


if __name__ == "__main__":
    main()
