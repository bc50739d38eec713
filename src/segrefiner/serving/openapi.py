"""What the API's description says beside what the code itself tells: forms, examples, problems and keys."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.responses import Response

from . import problems as errors
from .forms import LabelFields, MaskFields
from .problems import MEDIA_TYPE, Kind, ProblemDocument
from .responses import JSON, PNG, LabelsAnswer, MasksAnswer

DESCRIPTION = """Refines coarse segmentation masks of photos.

Files are PNG, JPEG, WebP, TIFF or BMP by their content. Every answer has an `X-Request-Id`, that of the request if it
brought one. Every failure is `application/problem+json`; 503 says in `Retry-After` when to try again.
"""

_FILE = {"type": "string", "format": "binary"}
_REPORT = {
    "changed": 0.031,
    "agreement": 0.87,
    "largest_shift": 14.0,
    "confidence": 0.93,
    "predicted_gain": 0.061,
    "unsure": 0.002,
    "too_far": 0.0,
    "kept_objects": {},
    "seconds": 0.21,
    "evaluations": 30,
    "steps": 3,
    "model": "compact",
    "seed": 0,
    "note": "",
    "warnings": [],
    "ceded": 0.0,
}
_EVERYWHERE = (errors.UNAUTHORIZED, errors.WRONG_HOST, errors.FAILED)
_OF_FORMS = (
    errors.BAD_REQUEST,
    errors.FOREIGN_ORIGIN,
    errors.NOT_ACCEPTABLE,
    errors.TOO_SLOW,
    errors.TOO_LARGE,
    errors.UNSUPPORTED_TYPE,
    errors.MASK,
    errors.BUSY,
    errors.OUT_OF_TIME,
)


def route(
    summary: str, *, responses: dict[int | str, dict[str, Any]], form: dict[str, Any] | None = None, body: str = ""
) -> Any:
    """Arguments of a FastAPI route: its description, and the problems that it may answer; `body` is a media type."""
    kinds = _EVERYWHERE + (_OF_FORMS if form or body else ())
    told: dict[int | str, dict[str, Any]] = {kind.status: _problem(kind) for kind in kinds}
    content = {"multipart/form-data": form} if form else {body: {"schema": {"type": "object"}}}
    extra = {"requestBody": {"required": True, "content": content}} if form or body else {}
    shared = {"summary": summary, "responses": {**responses, **told}, "openapi_extra": extra}
    return shared | ({"response_class": Response} if 200 in responses else {})


def _problem(kind: Kind) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {"description": kind.title, "content": {MEDIA_TYPE: {"schema": schema}}}


def _form(fields: type[BaseModel], files: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """A form's schema: files, and the fields as their model has them."""
    told = {name: _given(schema) for name, schema in fields.model_json_schema()["properties"].items()}
    return {
        "schema": {
            "type": "object",
            "properties": files | told,
            "required": [name for name in files if name != "mask"],
            "additionalProperties": False,
            "example": example,
        },
        "encoding": {"ignore": {"style": "form", "explode": True}} if "ignore" in told else {},
    }


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out, without the null that no text of a form can be."""
    rest = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    (kind,) = [one for one in schema.get("anyOf", [{}]) if one.get("type") != "null"]
    return rest | kind


def _answers(model: type[BaseModel], png: str, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {PNG: {"schema": _FILE}, JSON: {"schema": schema, "example": example}}
    return {200: {"description": f"{png} by `Accept`", "content": content}}


MASKS = route(
    "Refine masks of a photo",
    form=_form(
        MaskFields,
        {
            "image": _FILE | {"description": "The photo."},
            "mask": {"type": "array", "items": _FILE, "description": "Its coarse masks, one file each."},
        },
        {"image": "photo.jpg", "mask": ["coarse.png"], "seed": 0, "max_shift": 20},
    ),
    responses=_answers(
        MasksAnswer,
        "One mask as PNG (unless JSON is preferred), or all of them with their reports as JSON,",
        {"model": "compact", "masks": [{"rle": {"size": [2, 3], "counts": "132"}, "report": _REPORT}]},
    ),
)
LABELS = route(
    "Refine a semantic label map of a photo",
    form=_form(
        LabelFields,
        {
            "image": _FILE | {"description": "The photo."},
            "labels": _FILE | {"description": "Its label map: 8 or 16 bit grey, or a palette."},
        },
        {"image": "photo.jpg", "labels": "labels.png", "ignore": [255]},
    ),
    responses=_answers(
        LabelsAnswer,
        "The label map as PNG, or as PNG within JSON with the reports,",
        {"model": "compact", "labels_png": "iVBORw0KGgo=", "changed": 0.02, "vanished": [], "reports": {"3": _REPORT}},
    ),
)
MODELS = route("The models that may be asked for", responses={})
HEALTH = route("Health", responses={200: {"description": "It is well.", "content": {"text/plain": {}}}})
READY = route("Readiness", responses=HEALTH["responses"] | {503: _problem(errors.STOPPING)})
METRICS = route("Metrics", responses={200: {"description": "Figures.", "content": {"text/plain": {}}}})


def document(app: FastAPI, *, with_key: bool) -> dict[str, Any]:
    """The description of a finished app, as OpenAPI 3.1."""
    told = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    for model in (ProblemDocument, MasksAnswer, LabelsAnswer):
        schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    if with_key:
        told["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        told["security"] = [{"bearer": []}, {"header": []}]
    return told
