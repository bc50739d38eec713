"""The Hugging Face Hub: files from it, and folders to it. Its library is imported at use."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .. import environment
from ..errors import CheckpointError, OutputError, reason

_BRANCH_ONLY = "refs/"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where the library keeps downloads: `hub` in `$SEGREFINER_CACHE`, or else its usual place."""
    if chosen := environment.cache_folder():
        return chosen / "hub"
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def fetch(
    repository: str,
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Gives a file of a repository, from the library's cache if it is there.

    Args:
        repository: `owner/name`.
        name: Name of the file.
        revision: Branch, tag or commit; None for the main branch.
        cache_dir: Where downloads are kept; None for `hub` in `$SEGREFINER_CACHE`, or else the Hub's usual cache.
        local_files_only: Take it from the cache or not at all.

    Raises:
        CheckpointError: There is no such file, or it cannot be downloaded.
    """
    # Here, because who has a file should not wait for the import.
    import huggingface_hub
    from huggingface_hub import errors

    offline = environment.is_offline()
    off = f"{environment.OFFLINE} is on" if offline else "the Hub was not reached"
    address = huggingface_hub.hf_hub_url(repository, name, revision=revision)
    by_hand = f"go online once, or download {address} elsewhere and give the file"
    problems = {
        errors.GatedRepoError: "are gated; accept the terms on their Hub page, then run: hf auth login",
        errors.RepositoryNotFoundError: "do not exist or are private; check the id, or run: hf auth login",
        errors.RevisionNotFoundError: f"have no revision {revision!r}; check its name",
        errors.LocalEntryNotFoundError: f"are not in the cache and {off}; {by_hand}",
        errors.OfflineModeIsEnabled: f"are not in the cache and offline mode is on; {by_hand}",
        errors.EntryNotFoundError: f"have no file {name}; choose a repository made for segrefiner",
    }
    place = cache_folder() if cache_dir is None else Path(cache_dir)
    try:
        with _library_log_taken():
            return Path(
                huggingface_hub.hf_hub_download(
                    repository, name, revision=revision, cache_dir=place, local_files_only=local_files_only or offline
                )
            )
    except Exception as error:  # The HTTP library below has its own tree of errors, which changed before.
        other = f"cannot be downloaded ({reason(error)}); try again, or give a file"
        problem = _first(problems, error, other)
        raise CheckpointError(f"weights {repository!r} on the Hugging Face Hub {problem}") from error


class _Passing(logging.Handler):
    """Logs records again, as messages of this package."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one, on one line."""
        _log.info("%s", " ".join(record.getMessage().split()))


@contextmanager
def _library_log_taken() -> Iterator[None]:
    """Say at level INFO what the library warns of, such as each try: what fails in the end is an error of its own."""
    library = logging.getLogger("huggingface_hub")
    before = library.handlers[:]
    library.handlers[:] = [_Passing()]
    try:
        yield
    finally:
        library.handlers[:] = before


def upload(
    folder: Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload weights",
) -> str:
    """Puts weights and their card into a repository, which is made if there is none.

    Args:
        folder: A folder, whose `.safetensors` files and `README.md` are taken, and nothing else.
        repository: `owner/name`.
        private: Whether a repository that is made is for its owner alone; one that exists stays as it is.
        token: A token that may write; None for the one that `hf auth login` or `HF_TOKEN` gave.
        revision: Branch to write to, made if there is none; None for the main branch.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        OutputError: The Hub does not take it.
    """
    import huggingface_hub

    if environment.is_offline():
        raise OutputError(
            f"repository {repository!r} on the Hugging Face Hub cannot be reached: {environment.OFFLINE} is on"
        )
    try:
        api = huggingface_hub.HfApi(token=token, library_name="segrefiner")
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None and not revision.startswith(_BRANCH_ONLY):
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=["*.safetensors", "README.md"],
        )
        return done.commit_url
    except Exception as error:  # As above.
        problem = _upload_problem(error, revision)
        raise OutputError(f"repository {repository!r} on the Hugging Face Hub {problem}") from error


def _upload_problem(error: Exception, revision: str | None) -> str:
    """What a failed upload means and what helps, to follow the repository's name."""
    from huggingface_hub import errors

    problems = {
        errors.HFValidationError: "is no id; expected owner/name",
        errors.LocalTokenNotFoundError: "needs a token that may write; run: hf auth login",
        errors.GatedRepoError: "is gated; its owner must let you in",
        errors.RepositoryNotFoundError: "does not exist or is not yours; check the id, or run: hf auth login",
        errors.RevisionNotFoundError: f"has no revision {revision!r}; check its name",
        errors.OfflineModeIsEnabled: "cannot be reached: offline mode is on; unset HF_HUB_OFFLINE",
    }
    status = getattr(getattr(error, "response", None), "status_code", None)
    other = f"could not be written ({reason(error)}); try again"
    if status in (401, 403):
        other = f"may not be written by this token (HTTP {status}); run hf auth login with one that may write"
    return _first(problems, error, other)


def _first(problems: Mapping[type[Exception], str], error: Exception, other: str) -> str:
    # In this order: a gated repository is also a missing one to the library.
    return next((text for kind, text in problems.items() if isinstance(error, kind)), other)
