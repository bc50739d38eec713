"""Files from web addresses: fetched whole, verified, kept, and continued where a connection broke.

A file is kept under the user's cache folder and is complete whenever it is there: until then it is `NAME.part`, beside
which `NAME.part.tag` names the version that the server began to send.

The standard library does the talking. The libraries at hand for this either cannot continue a download or would be one
more dependency for everyone.
"""

import hashlib
import http.client
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock

from .. import environment
from ..errors import CheckpointError, reason
from .cache import Origin, cache_folder, checksum, write_origin

LARGEST = 4 * 2**30
"""Bytes that a file may have, by default."""

_CHUNK = 1 << 18
_ATTEMPTS = 3
_REDIRECTS = 5
_NEED_NOT_LAST = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Limits:
    """What a download may take.

    Attributes:
        size: Bytes that the file may have.
        timeout: Seconds without a word from the server, at its start and in between.
        pause: Seconds before the second attempt without progress; twice that before the third and last.
        loopback_http: Whether this machine's own servers may be asked without encryption.
    """

    size: int = LARGEST
    timeout: float = 30.0
    pause: float = 0.5
    loopback_http: bool = False


DEFAULT = Limits()


def fetch(
    url: str,
    sha256: str | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    check: Callable[[Path], object] = lambda path: None,
    limits: Limits = DEFAULT,
) -> Path:
    """Gives the file at a web address, from the cache if it is there.

    Args:
        url: Starts with `https://`; redirections must, too.
        sha256: What the file must have, 64 hexadecimal digits. Without it a file in the cache is taken as it is, even
            if the server has another one by now.
        cache_dir: Where downloads are kept; None for `cache_folder()`.
        local_files_only: Take it from the cache or not at all.
        check: Called with the complete file before it is kept; raises `CheckpointError` where it is not as expected.
        limits: What the download may take.

    Returns:
        The complete, verified file.

    Raises:
        CheckpointError: The address is none, the file cannot be fetched, or it is not the one that was asked for.
    """
    _check_address(url, limits)
    target = _place(url, sha256, Path(cache_dir) if cache_dir is not None else cache_folder())
    try:
        if _is_kept(target, sha256):
            return target
        if local_files_only or environment.is_offline():
            raise CheckpointError(f"weights {public_name(url)!r} are not in the cache{_offline()}; {_by_hand(target)}")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Whoever comes second waits, and finds the file.
        with FileLock(f"{target}.lock"):
            if not _is_kept(target, sha256):
                _Download(url, sha256, target, limits).run(check)
    except OSError as error:
        raise CheckpointError(
            f"weights {public_name(url)!r} cannot be kept in {str(target.parent)!r} ({reason(error)}); "
            "make room, or set SEGREFINER_CACHE to another folder; what is there of them is continued"
        ) from error
    return target


def public_name(url: str) -> str:
    """An address without what may be secret in it: signatures and tokens stand in the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]


class _BrokenError(Exception):
    """An attempt failed in a way that another one need not."""


class _Download:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, url: str, sha256: str | None, target: Path, limits: Limits) -> None:
        self.url, self.sha256, self.target, self.limits = url, sha256, target, limits
        self.part = target.with_name(target.name + ".part")
        self.tag = target.with_name(target.name + ".part.tag")
        self.opener = build_opener(_Redirects(limits))
        self.name = f"weights {public_name(url)!r}"

    def run(self, check: Callable[[Path], object]) -> None:
        """Leaves the verified file at its place."""
        continued = self._have() > 0
        with _bar(self.target.name) as follow:
            self._receive_all(follow)
            problem = self._problem(check)
            if problem and continued:
                # What an earlier call had left was of another file, or damaged.
                self._forget()
                self._receive_all(follow)
                problem = self._problem(check)
        if problem:
            self._forget()
            raise CheckpointError(f"{self.name} {problem}")
        with self.part.open("rb+") as stream:
            os.fsync(stream.fileno())
        # First, so that a file that is there has its record.
        write_origin(self.target, Origin(public_name(self.url), checksum(self.part)))
        os.replace(self.part, self.target)
        self.tag.unlink(missing_ok=True)

    def _receive_all(self, follow: Callable[[int, int | None], None]) -> None:
        """Attempts until the part is complete; only those without progress are counted."""
        failed = 0
        while True:
            before = self._have()
            try:
                return self._receive(follow)
            except _BrokenError as error:
                have = self._have()
                failed = 1 if have > before else failed + 1
                if failed == _ATTEMPTS:
                    kept = f"; {have / 1e6:.1f} MB of it are kept and continued next time" if have else ""
                    raise CheckpointError(
                        f"{self.name} cannot be downloaded ({error}, {failed} attempts){kept}; {_by_hand(self.target)}"
                    ) from error
                time.sleep(self.limits.pause * 2 ** (failed - 1))

    def _receive(self, follow: Callable[[int, int | None], None]) -> None:
        """One connection: appends to the part what is missing, or begins it anew."""
        have = self._have()
        response = self._ask(have)
        if response is None:
            return
        with response:
            if response.status == 200:
                have = 0
            elif response.status != 206 or not _starts_at(response, have):
                self._forget()
                raise _BrokenError(f"the server answered {response.status} with another part than was asked for")
            if response.headers.get_content_type() == "text/html":
                raise CheckpointError(
                    f"{self.name} are a web page, not a file; open it in a browser and give the address of the file "
                    "that it offers"
                )
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdecimal() else None
            self._check_size(total or 0)
            if not have:
                # First, so that no part of an old version is ever beside the tag of a new one.
                self._forget()
            self.tag.write_text(_version(response) or "")
            with self.part.open("ab" if have else "wb") as stream:
                while chunk := self._read(response):
                    stream.write(chunk)
                    have += len(chunk)
                    self._check_size(have)
                    follow(have, total)
            if total is not None and have < total:
                raise _BrokenError(f"the connection ended after {have} of {total} bytes")

    def _ask(self, have: int) -> Any:
        """The server's answer, or None if it says that there is nothing more to send."""
        request = Request(self.url, headers={"User-Agent": "segrefiner", "Accept-Encoding": "identity"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if version := self.tag.read_text():
                request.add_header("If-Range", version)
        try:
            return self.opener.open(request, timeout=self.limits.timeout)
        except HTTPError as error:
            with error:
                if error.code == 416 and have:
                    if error.headers.get("Content-Range", "") == f"bytes */{have}":
                        return None
                    self._forget()
                    raise _BrokenError("the server has no such part of it") from error
                if error.code in _NEED_NOT_LAST:
                    raise _BrokenError(f"HTTP {error.code} {error.reason}") from error
                raise CheckpointError(f"{self.name} {_refusal(error)}") from error
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise CheckpointError(
                    f"{self.name} cannot be downloaded: the server's certificate is not trusted "
                    f"({error.reason.verify_message}); check the address and this machine's clock"
                ) from error
            why = reason(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)
            raise _BrokenError(why) from error
        except ValueError as error:
            raise CheckpointError(f"{self.name} is no valid address ({reason(error)}); check it") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(reason(error)) from error

    def _read(self, response: Any) -> bytes:
        # Separate, because trouble with the disk is also an OSError.
        try:
            return bytes(response.read(_CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(reason(error)) from error

    def _have(self) -> int:
        """Bytes that can be continued: of a known version, or to be verified in the end."""
        if not self.part.is_file() or not self.tag.is_file():
            return 0
        return self.part.stat().st_size if self.sha256 or self.tag.read_text() else 0

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def _check_size(self, size: int) -> None:
        if size > self.limits.size:
            self._forget()
            raise CheckpointError(
                f"{self.name} are larger than the {self.limits.size / 1e9:.3g} GB that are allowed; "
                "check the address, or download the file by hand and give its path"
            )

    def _problem(self, check: Callable[[Path], object]) -> str:
        """What is wrong with the complete part, or nothing."""
        found = checksum(self.part)
        if self.sha256 and found != self.sha256:
            return (
                f"have the SHA-256 {found}, expected {self.sha256}; the file was damaged or exchanged: "
                "ask its author, do not use it"
            )
        try:
            check(self.part)
        except CheckpointError as error:
            return f"were downloaded and cannot be used: {error}"
        return ""


class _Redirects(HTTPRedirectHandler):
    max_redirections = _REDIRECTS

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        try:
            _check_address(newurl, self.limits)
        except CheckpointError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str, limits: Limits) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise CheckpointError(f"{url[:200]!r} is no web address ({reason(error)}); check it") from error
    if parts.username is not None or parts.password is not None:
        raise CheckpointError(f"the address {public_name(url)!r} holds a password; leave it out, or download by hand")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and limits.loopback_http and _is_own(host))):
        raise CheckpointError(
            f"the address {public_name(url)!r} does not start with https:// and a name; use one that does"
        )


def _is_own(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _place(url: str, sha256: str | None, cache: Path) -> Path:
    """Where the file at an address is kept; another checksum is another file."""
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2], flags=re.ASCII)[-80:].lstrip(".")
    key = hashlib.sha256(f"{url}#{sha256 or ''}".encode()).hexdigest()[:16]
    return cache / "weights" / key / (name or "model.safetensors")


def _is_kept(target: Path, sha256: str | None) -> bool:
    return target.is_file() and (sha256 is None or checksum(target) == sha256)


def _starts_at(response: Any, have: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")


def _version(response: Any) -> str | None:
    """What tells this version of the file from others: a strong tag, or a date."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _refusal(error: HTTPError) -> str:
    if error.code in (404, 410):
        return f"do not exist (HTTP {error.code}); check the address"
    if error.code in (401, 403):
        return f"are not for everyone (HTTP {error.code}); download them in a browser and give the file's path"
    why = " ".join(str(error.reason).split())
    return f"cannot be downloaded (HTTP {error.code}: {why}); check the address, or try again later"


def _offline() -> str:
    return f" and {environment.OFFLINE} is on" if environment.is_offline() else ""


def _by_hand(target: Path) -> str:
    return f"go online and try again, or download it elsewhere and put it at {str(target)!r}"


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on standard error; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=None)

        def follow(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        yield follow
