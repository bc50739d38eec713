"""The page that goes with weights to the Hugging Face Hub: what they are, how they came about, what they cannot do."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..rendering.markdown import NOTHING, as_markdown, flattened, inert
from .weights import FILE_NAME, STEPS_KEY, best_steps, checksum, load, metadata

_RECIPE_KEY, _TRAINED_KEY, _CONFIG_KEY = "recipe", "trained_steps", "config"
_TAGS = ["segmentation", "mask-refinement", "diffusion"]
_COLUMNS = {
    "step": "step",
    "pipeline": "pipeline",
    "photos": "photos",
    "iou_before": "IoU coarse",
    "iou_after": "IoU refined",
    "mba_before": "mBA coarse",
    "mba_after": "mBA refined",
    "harmed": "share harmed",
}
_WHAT = """# {name}

Weights for `segrefiner`, which refines segmentation masks: a photo and its coarse mask in, the mask that a careful
person would have drawn out. They follow SegRefiner ([arXiv 2312.12425](https://arxiv.org/abs/2312.12425)): the coarse
mask is a noisy version of the true one, from which a small network moves pixels step by step.

{parameters:.1f} M parameters, {size:.1f} MB, best with {steps}."""
_USE = """## Use

```sh
segrefiner refine photo.jpg coarse.png -o refined.png --model {repository}
```

```python
from segrefiner import Refiner

refiner = Refiner.from_pretrained("{repository}")
result = refiner("photo.jpg", "coarse.png", seed=0)
result.mask  # (H, W) bool
```

With the checksum of `{file}` at its end, the name means this very file, and another one is refused:

```
{repository}#sha256={sha256}
```"""
_LIMITS = """## Limits

- They move the contours of a mask that is roughly right. An object that the coarse mask lacks is not found, and a
  wrong object stays.
- Photos and masks unlike those of the training are refined less well, and some masks are made worse. Measure it on
  photos of your own that have true masks, with `segrefiner evaluate folder`, before you rely on it.
- This card was written by a program, from what the file says of itself; nobody has checked it."""
_NO_LICENCE = "None was named. Ask the author before you use them."


def model_card(
    path: str | os.PathLike[str],
    repository: str,
    *,
    license: str | None = None,
    validation: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Writes the card of a weights file, in Markdown under the Hub's header.

    Args:
        path: The file, which is verified.
        repository: `owner/name` where it will be.
        license: As the Hub abbreviates licences, such as "apache-2.0"; None says that none was named.
        validation: Rows of a run's `validation.jsonl`, measured while these weights were trained.

    Returns:
        The text; the same for the same file and arguments.

    Raises:
        CheckpointError: The file is none that `load` accepts.
        InputError: The repository or the licence is not as described.
    """
    from huggingface_hub import ModelCardData

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise InputError(f"the repository is {repository!r}: expected owner/name")
    if license is not None and not re.fullmatch(r"[\w.-]+", license, re.ASCII):
        raise InputError(f"the licence is {license!r}: expected an abbreviation such as 'apache-2.0'")
    path = Path(path)
    parameters = sum(parameter.numel() for parameter in load(path).parameters())
    entries, steps = metadata(path), best_steps(path)
    header = ModelCardData(license=license, library_name="segrefiner", tags=_TAGS, pipeline_tag="image-segmentation")
    what = _WHAT.format(
        name=repository.rpartition("/")[2],
        parameters=parameters / 1e6,
        size=path.stat().st_size / 1e6,
        steps="one diffusion step" if steps == 1 else f"{steps} diffusion steps",
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        what,
        _USE.format(repository=repository, file=FILE_NAME, sha256=checksum(path)),
        *_figures(validation, entries),
        _LIMITS,
        *_origin(entries),
        f"## Licence\n\n{f'`{license}`' if license else _NO_LICENCE}",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(validation: Sequence[Mapping[str, Any]], entries: Mapping[str, Any]) -> list[str]:
    if not validation:
        return ["## Figures\n\nNone came with the weights."]
    columns = [key for key in _COLUMNS if any(key in row for row in validation)]
    lines = [[_cell(row.get(key)) for key in columns] for row in validation]
    trained = entries.get(_TRAINED_KEY)
    of = f"; these weights are of step {inert(str(trained))}" if trained else ""
    note = f"Measured while training, on the photos that the run had put aside{of}."
    return [f"## Figures\n\n{note}\n\n{as_markdown(([_COLUMNS[key] for key in columns], lines))}"]


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    return f"{value:#.4g}" if isinstance(value, float) else str(value)


def _origin(entries: Mapping[str, Any]) -> list[str]:
    """Everything that the file says of itself."""
    # Sorted, because the library that reads the file gives them in any order.
    told = {key: value for key, value in entries.items() if key not in (_CONFIG_KEY, _RECIPE_KEY, STEPS_KEY)}
    facts = [[key, str(value)] for key, value in sorted(told.items())]
    parts = ["## Origin", "Everything that the file says of itself."]
    if facts:
        parts.append(as_markdown((["entry", "value"], facts)))
    parts.append(_values("network", entries[_CONFIG_KEY]))
    if _RECIPE_KEY in entries:
        parts.append(_values("recipe", _parsed(entries[_RECIPE_KEY])))
    return parts


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _values(what: str, values: object) -> str:
    lines = flattened(values) if isinstance(values, dict) else [("", str(values))]
    return as_markdown(([what, "value"], [list(line) for line in lines]))
