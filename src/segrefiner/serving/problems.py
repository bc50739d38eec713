"""What goes wrong with a request, as RFC 9457 has it: `application/problem+json`."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..errors import ImageError, InputError, MaskError, SizeMismatchError, printable
from ..imaging.json_files import json_text
from ..refinement.pipelines.batching import ran_out_of_memory

MEDIA_TYPE = "application/problem+json"
_LONGEST_FAULT = 8000
"""Letters that one request may put into the log."""

_NAMESPACE = "urn:segrefiner:problem:"


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its name for programs, the status, and a title that is the same each time."""

    name: str
    status: int
    title: str


BAD_REQUEST = Kind("bad-request", 400, "The request cannot be read")
UNAUTHORIZED = Kind("unauthorized", 401, "The API key is missing or wrong")
FOREIGN_ORIGIN = Kind("foreign-origin", 403, "Another site's page sent this request")
NOT_FOUND = Kind("not-found", 404, "There is nothing here")
WRONG_METHOD = Kind("method-not-allowed", 405, "Not with this method")
NOT_ACCEPTABLE = Kind("not-acceptable", 406, "No answer is of an accepted type")
TOO_SLOW = Kind("too-slow", 408, "The request took too long to arrive")
TOO_LARGE = Kind("too-large", 413, "Too much was sent")
UNSUPPORTED_TYPE = Kind("unsupported-type", 415, "A type that is not read here")
WRONG_HOST = Kind("wrong-host", 421, "Not for this host name")
PARAMETER = Kind("parameter", 422, "A parameter cannot be used")
IMAGE = Kind("image", 422, "The photo cannot be used")
MASK = Kind("mask", 422, "The mask cannot be used")
SIZE_MISMATCH = Kind("size-mismatch", 422, "Photo and mask differ in size")
FAILED = Kind("failed", 500, "The server failed")
BUSY = Kind("busy", 503, "The server has too much to do")
STOPPING = Kind("stopping", 503, "The server is about to stop")
OUT_OF_TIME = Kind("out-of-time", 504, "The answer took too long")

_OF_ERRORS = ((SizeMismatchError, SIZE_MISMATCH), (MaskError, MASK), (ImageError, IMAGE), (InputError, PARAMETER))
_OF_STATUSES = {404: NOT_FOUND, 405: WRONG_METHOD}


class ProblemError(Exception):
    """A request that is answered by an error.

    Args:
        kind: Which one.
        detail: What was given, what was expected and what to do; clients see it.
        headers: Of the answer.
        errors: `(parameter, message)` of each parameter that is wrong.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers, self.errors = kind, detail, dict(headers or {}), errors


class GoneError(Exception):
    """The client went away: nobody is there to be answered."""


class WrongParameter(BaseModel):
    """One parameter that cannot be used."""

    parameter: str
    message: str


class ProblemDocument(BaseModel):
    """What went wrong, by RFC 9457."""

    type: str = Field(description="Names the kind of problem, for programs.", examples=[_NAMESPACE + MASK.name])
    title: str = Field(description="The kind of problem, for people.", examples=[MASK.title])
    status: int = Field(examples=[MASK.status])
    detail: str = Field(
        description="What was given, what was expected and what to do.",
        examples=["mask (68 bytes in memory) is empty (0 bytes), expected an image file; copy or download it again"],
    )
    request_id: str = Field(description="Of the header X-Request-Id; the server's log names it.")
    errors: list[WrongParameter] | None = Field(None, description="Each wrong parameter, where some are.")


def busy(kind: Kind, detail: str, seconds: float) -> ProblemError:
    """The problem of a server that may have time in so many seconds."""
    return ProblemError(kind, detail, headers={"Retry-After": str(max(1, round(seconds)))})


def as_problem(error: Exception) -> ProblemError:
    """The problem that tells a client of an error, without anything of the server's own affairs."""
    if isinstance(error, ProblemError):
        return error
    for type_, kind in _OF_ERRORS:
        if isinstance(error, type_):
            return ProblemError(kind, str(error))
    if isinstance(error, ValidationError):
        return _of_parameters(error)
    if isinstance(error, HTTPException) and error.status_code in _OF_STATUSES:
        kind = _OF_STATUSES[error.status_code]
        return ProblemError(kind, f"{kind.title.lower()}: see /v1/openapi.json for what is", headers=error.headers)
    if ran_out_of_memory(error):
        return busy(BUSY, "memory ran out: send smaller pictures or fewer masks, or try again later", 10)
    return ProblemError(FAILED, "something failed inside the server, whose log says more under this request id")


def fault(error: BaseException) -> str:
    """What the log says of a fault: one trace of bounded length, without letters that a terminal would obey."""
    text = "".join(traceback.format_exception(error))
    if len(text) > _LONGEST_FAULT:
        text = f"{text[: _LONGEST_FAULT // 2]}\n…\n{text[-_LONGEST_FAULT // 2 :]}"
    return "\n".join(printable(line) for line in text.split("\n"))


def response(problem: ProblemError, request_id: str) -> Response:
    """The answer that tells of a problem."""
    document = {
        "type": _NAMESPACE + problem.kind.name,
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": problem.detail,
        "request_id": request_id,
    }
    errors = [{"parameter": parameter, "message": message} for parameter, message in problem.errors]
    content = json_text(document | ({"errors": errors} if errors else {}))
    return Response(content, problem.kind.status, problem.headers, media_type=MEDIA_TYPE)


def _of_parameters(error: ValidationError) -> ProblemError:
    """Of a form's fields; what was given is not repeated, as it may be long."""
    found = [(".".join(map(str, one["loc"]))[:40] or "form", one["msg"]) for one in error.errors(include_input=False)]
    told = "; ".join(f"{name}: {message}" for name, message in found[:5])
    return ProblemError(PARAMETER, told, errors=found[:20])
