"""What clients get: masks as PNG or as JSON, by what they accept."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ..imaging.coco_masks import encode_rle
from ..imaging.files import png_bytes
from ..imaging.json_files import json_text
from ..imaging.label_files import LabelMap, labels_png
from ..refinement.label_maps import RefinedLabels
from ..refinement.report import Report
from .forms import Kept
from .problems import NOT_ACCEPTABLE, ProblemError

PNG, JSON = "image/png", "application/json"
REPORT_HEADER = "X-Segrefiner-Report"

_Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": PNG})]


class Rle(BaseModel):
    """A mask as COCO's compressed run-length encoding."""

    size: tuple[int, int] = Field(description="Height and width.", examples=[(2, 3)])
    counts: str = Field(examples=["132"])


class RefinedMask(BaseModel):
    """One refined mask."""

    rle: Rle
    probability_png: _Base64 | None = Field(None, description="A PNG of 8 bit, where soft was asked for.")
    report: Report


class MasksAnswer(BaseModel):
    """Refined masks in the order of the coarse ones."""

    model: str
    masks: list[RefinedMask]


class LabelsAnswer(BaseModel):
    """A refined label map."""

    model: str
    labels_png: _Base64 = Field(description="A PNG of the given one's bits and palette.")
    changed: float = Field(description="Share of the pixels whose label changed.")
    vanished: list[int] = Field(description="Labels that no pixel has any more.")
    warnings: list[str] = Field([], description="What had to be guessed of the photo.")
    reports: dict[int, Report] = Field(description="What changed, by label, before the joint decision.")


class ModelEntry(BaseModel):
    """A model that may be asked for."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    default: bool
    steps: int = Field(description="Diffusion steps of requests that do not say.")


class ModelsAnswer(BaseModel):
    """The models that this server offers."""

    models: list[ModelEntry]


def chosen_type(accept: str, offered: Sequence[str]) -> str:
    """The best of the offered types by an Accept header, the earlier one between equals.

    Raises:
        ProblemError: None of them is accepted.
    """
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        weights[name] = _weight(parameters)
    if not accept.strip():
        return offered[0]

    def weight(kind: str) -> float:
        for name in (kind, kind.partition("/")[0] + "/*", "*/*"):
            if name in weights:
                return weights[name]
        return 0.0

    best = max(offered, key=weight)
    if not weight(best):
        raise ProblemError(NOT_ACCEPTABLE, f"this request can be answered by {' or '.join(offered)}: accept that")
    return best


def masks_answer(kind: str, model: str, kept: Sequence[Kept]) -> Response:
    """Refined masks as JSON, or one of them as PNG."""
    if kind == PNG:
        (one,) = kept
        content = png_bytes(one.mask if one.probability is None else one.probability)
        return _png(content, asdict(one.report))
    masks = [
        RefinedMask(
            rle=Rle(**encode_rle(one.mask)),
            probability_png=None if one.probability is None else _base64(png_bytes(one.probability)),
            report=one.report,
        )
        for one in kept
    ]
    return _json(MasksAnswer(model=model, masks=masks))


def labels_answer(kind: str, model: str, refined: RefinedLabels, given: LabelMap) -> Response:
    """A refined label map as PNG or as JSON."""
    content = labels_png(LabelMap(refined.labels, given.palette))
    changed, vanished, warnings = refined.changed, list(refined.vanished), list(refined.warnings)
    if kind == PNG:
        return _png(content, {"changed": changed, "vanished": vanished, "warnings": warnings})
    return _json(
        LabelsAnswer(
            model=model,
            labels_png=_base64(content),
            changed=changed,
            vanished=vanished,
            warnings=warnings,
            reports=refined.reports,
        )
    )


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def _png(content: bytes, report: dict[str, Any]) -> Response:
    headers = {REPORT_HEADER: json_text(report), "Vary": "Accept"}
    return Response(content, media_type=PNG, headers=headers)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), media_type=JSON, headers={"Vary": "Accept"})


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
