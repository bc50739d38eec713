"""A Hugging Face Hub that keeps what it is given, without any network."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub


class Hub:
    """The part of `huggingface_hub.HfApi` that pushes use; keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None

    def __call__(self, *, token: str | None, library_name: str) -> "Hub":
        self.calls.append(("api", token))
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", repo_id, private))
        assert exist_ok
        if self.error is not None:
            raise self.error

    def create_branch(self, repo_id: str, *, branch: str, exist_ok: bool) -> None:
        self.calls.append(("branch", branch))

    def upload_folder(self, *, repo_id: str, folder_path: Path, revision: str | None, commit_message: str,
                      allow_patterns: list[str]) -> Any:  # fmt: skip
        self.calls.append(("upload", repo_id, revision, commit_message))
        found = huggingface_hub.utils.filter_repo_objects(
            [str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()],
            allow_patterns=allow_patterns,
        )
        self.files = {name: (folder_path / name).read_bytes() for name in found}
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1234")
