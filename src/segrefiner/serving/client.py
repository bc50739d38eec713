"""A client of `segrefiner serve`, by the standard library alone: masks refined on another machine."""

import base64
import http.client
import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, InputError, MaskError, SegRefinerError, ServerError, SizeMismatchError, reason
from ..imaging.coco_masks import decode_rle, encode_rle
from ..imaging.codecs.option_checks import listed_boxes
from ..imaging.files import png_bytes
from ..imaging.reading import ImageSource, MaskSource, read_image, read_mask, read_photo, warn_of
from ..refinement.options import PLAIN, Options

T = TypeVar("T")

_ERRORS: dict[str, type[SegRefinerError]] = {
    "size-mismatch": SizeMismatchError,
    "mask": MaskError,
    "image": ImageError,
    "parameter": InputError,
    "too-large": InputError,
    "unsupported-type": InputError,
    "bad-request": InputError,
}
"""By the last part of a problem's type; all else is the server's fault, or that of who set it up."""


@dataclass(frozen=True)
class RemoteResult:
    """A mask that a server refined.

    Attributes:
        mask: `(H, W)` bool, exactly the photo's size.
        probability: `(H, W)` float32 in [0, 1], in steps of 1/255; `None` unless `soft` was asked for.
        report: What changed, as the fields of `Report`.

    >>> result = Client("http://127.0.0.1:8000").refine("photo.jpg", "coarse.png", soft=True)
    >>> result.mask.shape, result.probability.dtype
    ((96, 128), dtype('float32'))
    >>> sorted(result.report)[:3]
    ['agreement', 'ceded', 'changed']
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32] | None
    report: Mapping[str, Any]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A server of ours never sends its clients elsewhere, where the key would go along."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Client:
    """Asks one server.

    Args:
        url: Of the server, such as `http://127.0.0.1:8000`.
        api_key: That the server wants, or none.
        timeout: Seconds without any answer.

    Raises:
        InputError: The URL is none of a server.

    >>> from segrefiner import Client
    >>> client = Client("http://127.0.0.1:8000", timeout=60)
    >>> client.refine("photo.jpg", "coarse.png", seed=1).mask.shape
    (96, 128)
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 300.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{url!r} is no URL of a server: expected one such as http://127.0.0.1:8000")
        self._url, self._timeout = url.rstrip("/"), timeout
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._opener = urllib.request.build_opener(_NoRedirect)

    def models(self) -> list[str]:
        """Names of the models that the server offers, the default first; raises as `refine` does.

        >>> client = Client("http://127.0.0.1:8000")
        >>> for name in client.models():
        ...     print(name)
        compact
        """
        return self._asked("/v1/models", None, {}, lambda answer: [entry["name"] for entry in answer["models"]])

    @overload
    def refine(
        self, image: ImageSource, mask: list[MaskSource] | tuple[MaskSource, ...], **options: Any
    ) -> list[RemoteResult]: ...

    @overload
    def refine(self, image: ImageSource, mask: MaskSource, **options: Any) -> RemoteResult: ...

    def refine(self, image: ImageSource, mask: Any, **options: Any) -> RemoteResult | list[RemoteResult]:
        """Refines one mask or several of a photo, as `Refiner` does on this machine.

        Args:
            image: The photo, as for `Refiner`. Files are sent as they are; the server reads JPEG, PNG, WebP, TIFF, BMP.
            mask: One mask as for `Refiner`, or a list of them. They are read here and sent run-length encoded.
            options: `seed`, `steps`, `threshold`, `max_shift`, `strength` and `trust` as of `Refiner`, `boxes` as of
                `Refiner.instances`, `model`, a name among `models()`, and `soft=True` to fetch probabilities too.

        Returns:
            `Refined` for one mask, a list of them for a list.

        Raises:
            InputError: What was given cannot be used, in this program's words or the server's.
            ServerError: The server cannot be reached, wants another key, has too much to do, or failed.

        >>> client = Client("http://127.0.0.1:8000")
        >>> results = client.refine("photo.jpg", ["coarse.png", "other.png"], max_shift=8)
        >>> [result.mask.dtype for result in results]
        [dtype('bool'), dtype('bool')]
        """
        several = isinstance(mask, list | tuple)
        threshold = options.pop("threshold", None)
        coarse = [read_mask(one, threshold=threshold) for one in (mask if several else [mask])]
        fields = {name: value for name, value in options.items() if value is not None}
        checked = asdict(Options(**{name: fields[name] for name in asdict(PLAIN) if name in fields}))
        fields |= {name: value for name, value in checked.items() if name in fields}
        fields["rle"] = [encode_rle(one) for one in coarse]
        if "boxes" in fields:
            fields["boxes"] = listed_boxes(fields["boxes"])
        body, kind = _form(_content(image), fields)

        notes: dict[str, None] = {}

        def read(answer: Any) -> list[RemoteResult]:
            for got in answer["masks"]:
                notes.update(dict.fromkeys(dict(got["report"]).get("warnings", ())))
            return [_refined(got, one.shape) for got, one in zip(answer["masks"], coarse, strict=True)]

        refined = self._asked("/v1/refine", body, {"Content-Type": kind}, read)
        warn_of(tuple(notes))
        return refined if several else refined[0]

    def _asked(self, path: str, body: bytes | None, headers: Mapping[str, str], read: Callable[[Any], T]) -> T:
        """What is read from the server's JSON."""
        sent = {"Accept": "application/json", **self._headers, **headers}
        request = urllib.request.Request(self._url + path, data=body, headers=sent)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._told(error) from None
        except (OSError, http.client.HTTPException) as error:
            inner = getattr(error, "reason", None)
            why = reason(inner if isinstance(inner, Exception) else error)
            raise ServerError(f"{self._url} does not answer as it should ({why}): check that it runs") from error
        try:
            return read(json.loads(content))
        except (KeyError, TypeError, ValueError) as error:
            raise ServerError(f"{self._url} answers what no segrefiner server does: check the URL") from error

    def _told(self, error: urllib.error.HTTPError) -> SegRefinerError:
        """What the server says is wrong."""
        try:
            problem = json.loads(error.read())
            kind, detail = str(problem["type"]).rpartition(":")[2], str(problem["detail"])
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
            return ServerError(f"{self._url} answers {error.code} {error.reason}: check the URL")
        if kind in _ERRORS:
            return _ERRORS[kind](detail)
        after = error.headers.get("Retry-After")
        return ServerError(f"{self._url}: {detail}" + (f" (in about {after} s)" if after else ""))


def _content(image: ImageSource) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        try:
            with open(image, "rb") as stream:
                return stream.read()
        except (OSError, ValueError) as error:
            raise ImageError(f"image {str(image)!r} cannot be read ({reason(error)}): check the path") from error
    photo = read_photo(image)
    warn_of(photo.notes)
    return png_bytes(photo.pixels, profile=photo.profile)


def _form(image: bytes, fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """A multipart body, and its type."""
    boundary = secrets.token_hex(16)

    def field(name: str, value: Any) -> bytes:
        text = value if isinstance(value, str) else json.dumps(value, default=float)
        return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()

    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'.encode()
    end = f"\r\n--{boundary}--\r\n".encode()
    return b"".join(
        [*map(field, fields, fields.values()), head, image, end]
    ), f"multipart/form-data; boundary={boundary}"


def _refined(answer: Mapping[str, Any], size: tuple[int, ...]) -> RemoteResult:
    mask = decode_rle(answer["rle"], (size[0], size[1]))
    png = answer.get("probability_png")
    probability = None
    if png is not None:
        probability = np.asarray(read_image(base64.b64decode(png))[..., 0], np.float32) / np.float32(255)
    return RemoteResult(mask, probability, answer["report"])
