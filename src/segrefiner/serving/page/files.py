"""The page's own folder: the only files that a visitor can name, by names that tell nothing of this machine.

A name is looked up in a list of what the page itself has written. What is not on the list is no file, whatever path
it spells, and nothing is asked of the file system. The real path is checked all the same.
"""

import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ...errors import InputError

_PREFIX = "segrefiner-page-"
_LOCK = "lock"
_YOUNG_SECONDS = 60
"""A folder this young may belong to a process that has not locked it yet."""

_LONGEST_NAME = 200
"""Bytes; file systems take 255."""

_LEAST_BYTES = 4096
"""For which every file counts, so that many empty ones are not free."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass
class _Entry:
    client: str | None
    path: Path
    size: int
    media_type: str
    used: float


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        name: By which clients know it, `TOKEN/NAME`.
        path: Where it lies.
        size: Bytes for which it counts.
        media_type: By its content, "application/octet-stream" for what no browser should show.
    """

    name: str
    path: Path
    size: int
    media_type: str


class PageFiles:
    """Files of the page's visitors, in a private folder that ends with the process.

    Args:
        all_bytes: Of all files together. The oldest files of the client that holds most are deleted beyond it.
        client_bytes: Of one client's files. Its oldest ones are deleted beyond it.
        kept_seconds: After its last use, a file is deleted.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        *,
        all_bytes: int = 2 << 30,
        client_bytes: int = 1 << 30,
        kept_seconds: float = 1800,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        remove_stale_folders()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        self._lock_file = FileLock(self.folder / _LOCK)
        self._lock_file.acquire()
        self._all_bytes, self._client_bytes, self._kept, self._clock = all_bytes, client_bytes, kept_seconds, clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)

    def close(self) -> None:
        """Deletes all of it."""
        self._lock_file.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, client: str | None, name: str, content: bytes) -> PageFile:
        """Writes a file.

        Args:
            client: Whose it is; `None` for the page's own, which stay.
            name: What a download of it is called; letters that no name needs are replaced.
            content: All of it.

        Raises:
            InputError: It is larger than one client may have.
        """
        if client is not None and len(content) > self._client_bytes:
            raise InputError(f"the file is larger than {self._client_bytes / 1e6:g} MB: make it smaller")
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        plain = plain.encode()[-_LONGEST_NAME:].decode(errors="ignore").lstrip(".") or "file"
        # The same content of the same client is one file: an editor sends its background again and again.
        digest = hmac.new(self._secret, f"{client}\0{plain}\0".encode() + content, hashlib.sha256)
        key = f"{digest.hexdigest()[:32]}/{plain}"
        with self._lock:
            if key in self._entries:
                return self._touched(key)
            self._clean()
            size = max(_LEAST_BYTES, len(content))
            self._make_room(client, size)
            path = self.folder / key
            path.parent.mkdir(mode=0o700)
            path.write_bytes(content)
            self._entries[key] = _Entry(client, path, size, _media_type(content), self._clock())
            return self._touched(key)

    def find(self, name: object) -> PageFile | None:
        """The file of this name; none for all else, whatever it is."""
        with self._lock:
            self._clean()
            if not isinstance(name, str) or name not in self._entries:
                return None
            found = self._touched(name)
        # Whoever can plant a link into a private folder needs no page; this is for the day when something else does.
        real = Path(os.path.realpath(found.path))
        return found if real == found.path and real.is_relative_to(self.folder) and real.is_file() else None

    def tidy(self) -> None:
        """Deletes what was not used for long."""
        with self._lock:
            self._clean()

    def bytes_of(self, client: str | None) -> int:
        """What a client's files take."""
        return sum(entry.size for entry in self._entries.values() if entry.client == client)

    def _touched(self, key: str) -> PageFile:
        entry = self._entries[key]
        entry.used = self._clock()
        return PageFile(key, entry.path, entry.size, entry.media_type)

    def _clean(self) -> None:
        before = self._clock() - self._kept
        for key in [key for key, entry in self._entries.items() if entry.client is not None and entry.used < before]:
            self._remove(key)

    def _make_room(self, client: str | None, size: int) -> None:
        if client is None:
            return
        while (mine := self.bytes_of(client)) and mine + size > self._client_bytes:
            self._remove_oldest(client)
        while (owners := self._owners()) and sum(owners.values()) + size > self._all_bytes:
            self._remove_oldest(max(owners, key=lambda owner: owners[owner]))

    def _owners(self) -> dict[str, int]:
        owners: dict[str, int] = {}
        for entry in self._entries.values():
            if entry.client is not None:
                owners[entry.client] = owners.get(entry.client, 0) + entry.size
        return owners

    def _remove_oldest(self, client: str) -> None:
        theirs = [key for key, entry in self._entries.items() if entry.client == client]
        self._remove(min(theirs, key=lambda key: self._entries[key].used))

    def _remove(self, key: str) -> None:
        shutil.rmtree(self._entries.pop(key).path.parent, ignore_errors=True)


def remove_stale_folders() -> int:
    """Deletes the folders of processes that were killed, and so could not do it. Returns how many."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            foreign = hasattr(os, "getuid") and status.st_uid != os.getuid()
            if folder.is_symlink() or not folder.is_dir() or foreign or time.time() - status.st_mtime < _YOUNG_SECONDS:
                continue
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        except (Timeout, OSError):
            continue
    return removed


def _media_type(content: bytes) -> str:
    """What browsers may show, by its first bytes; all else is only to be saved."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((kind for start, kind in _SIGNATURES if content.startswith(start)), "application/octet-stream")
