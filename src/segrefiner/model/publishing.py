"""Weights on their way to others: copied as they are, and put on the Hugging Face Hub with a card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..errors import OutputError, reason
from ..imaging.files import atomic_write
from . import hub
from .model_card import model_card
from .unet import DenoisingUNet
from .weights import FILE_NAME, STEPS_KEY, save
from .weights_checks import bad_file

MESSAGE = "Upload weights for segrefiner"
_CARD_NAME = "README.md"


@dataclass(frozen=True)
class Original:
    """The file from which weights were loaded, as it was then."""

    path: Path
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> "Original":
        """Takes note of a file, before it is loaded."""
        facts = path.stat()
        return cls(path, facts.st_size, facts.st_mtime_ns)

    def copy_to(self, target: Path) -> None:
        """Copies the file, byte for byte.

        Raises:
            CheckpointError: It is not there any more, or was changed after it was loaded.
            OutputError: The copy cannot be written.
        """
        if not self.path.is_file() or Original.of(self.path) != self:
            raise bad_file(self.path, "is not the one any more that was loaded; load it again, then save it")
        if target.exists() and target.samefile(self.path):
            return
        with self.path.open("rb") as stream:
            atomic_write(target, lambda copy: shutil.copyfileobj(stream, copy))


def place_in(folder: Path) -> Path:
    """Where weights stand in a folder, which is made if there is none. Raises `OutputError` where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {str(folder)!r} cannot be made ({reason(error)}); choose another one") from error
    return folder / FILE_NAME


def save_network(network: DenoisingUNet, target: Path, *, steps: int) -> None:
    """Writes a weights file that keeps every parameter exactly, in the smallest dtype that does.

    Args:
        network: The network.
        target: Where to; must end in `.safetensors`.
        steps: Diffusion steps with which it refines best.

    Raises:
        CheckpointError: A parameter is NaN or infinite.
        OutputError: The file cannot be written.
    """
    parameters = list(network.parameters())
    widest = max((parameter.dtype for parameter in parameters), key=lambda dtype: dtype.itemsize)
    fitting = (kind for kind in (torch.float16, torch.bfloat16, torch.float32) if _keeps(parameters, kind))
    save(network, target, dtype=next(fitting, widest), metadata={STEPS_KEY: str(steps)})


def push(
    path: Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = MESSAGE,
    license: str | None = None,
    validation: Sequence[Mapping[str, Any]] = (),
    card: Path | None = None,
) -> str:
    """Puts a weights file and its card on the Hugging Face Hub.

    Args:
        path: The file, which is verified first.
        repository: `owner/name`, made if there is none.
        private: Whether a repository that is made is for its owner alone; one that exists stays as it is.
        token: A token that may write; None for the one that `hf auth login` or `HF_TOKEN` gave.
        revision: Branch to write to, made if there is none; None for the main branch.
        message: Message of the commit.
        license: Licence as the Hub abbreviates it, such as "apache-2.0"; None says that none was named.
        validation: Rows of a run's `validation.jsonl`, measured while these weights were trained.
        card: A card that was written by hand, in place of a generated one.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The file is none that `weights.load` accepts.
        InputError: The repository or the licence is not as described.
        OutputError: The Hub does not take it.
    """
    # Also where there is another card: nothing goes out that was not verified.
    text = model_card(path, repository, license=license, validation=validation)
    try:
        with TemporaryDirectory(prefix="segrefiner-") as folder:
            shutil.copyfile(path, Path(folder, FILE_NAME))
            if card is None:
                Path(folder, _CARD_NAME).write_text(text, encoding="utf-8")
            else:
                shutil.copyfile(card, Path(folder, _CARD_NAME))
            return hub.upload(
                Path(folder), repository, private=private, token=token, revision=revision, message=message
            )
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"the upload cannot be prepared ({reason(error)}); free some space") from error


def _keeps(parameters: Sequence[torch.Tensor], dtype: torch.dtype) -> bool:
    """Whether no parameter changes in a dtype."""
    return all(torch.equal(parameter, parameter.to(dtype).to(parameter.dtype)) for parameter in parameters)
