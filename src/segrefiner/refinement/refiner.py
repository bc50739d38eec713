"""`Refiner`: a photo and a coarse mask in, the refined mask and a report of what changed out."""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import environment
from ..errors import InputError
from ..imaging.boxes import Box
from ..imaging.codecs.option_checks import shown, whole_number
from ..imaging.reading import ImageSource, MaskSource, Photo, read_photo, warn_of
from ..model.backends import Backend, TorchBackend, choose_device, open_model
from ..model.diffusion import NUM_TIMESTEPS, OnProgress, silent
from ..model.publishing import MESSAGE, Original, place_in, push, save_network
from ..model.unet import DenoisingUNet
from .forking import check_own, revive, use_threads
from .groups import GroupSettings, refine_groups
from .instances import separate_reported
from .options import PLAIN, OptionFields, Options
from .pipelines.batching import AdaptiveBatcher, batch_size
from .pipelines.coarse_to_fine import default_pipeline
from .pipelines.config import DEFAULT
from .pipelines.tasks import MaskTask, Pipeline, read_tasks, triples, whole_boxes
from .report import Report

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A refined mask.

    Attributes:
        mask: `(H, W)` bool, exactly the input's size.
        probability: `(H, W)` float32 in [0, 1]; `mask` is where it is at least 0.5.
        report: What changed.

    >>> result = refiner("photo.jpg", "coarse.png")
    >>> result.mask.shape, result.mask.dtype, result.probability.dtype
    ((96, 128), dtype('bool'), dtype('float32'))
    >>> bool((result.mask == (result.probability >= 0.5)).all())
    True
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]
    report: Report


class Refiner:
    """Refines coarse masks with one set of weights on one device.

    Args:
        network: The denoising network, on its device, or another backend that computes one.
        dtype: `torch.float32`, `torch.bfloat16` or `torch.float16`, in which PyTorch computes the network.
        name: Of the weights, for reports.
        pipeline: `default_pipeline`, or one of the two published ones.
        steps: Diffusion steps of calls that do not say, 1 to 6.
        batch: Views of 256x256 pixels that the network sees at once, at most, or smaller ones of as many pixels; by
            default 8 on a CPU, or what of the published network's size fits a gibibyte, and what fits the free memory
            of a GPU. It is halved whenever memory runs out, which is logged. Another batch is another rounding.
        batch_invariant: Whether a mask's result is the same to the bit whatever else is refined with it: then the
            network sees views of one object at a time. By default on a CPU, where it costs little; a GPU needs the
            views of many small objects at once to be busy.

    >>> from segrefiner import Refiner
    >>> refiner = Refiner.from_pretrained()
    >>> result = refiner("photo.jpg", "coarse.png")
    >>> print("Report:", result.report)
    Report: ... % of pixels changed, IoU with the coarse mask ... %, ...
    """

    def __init__(
        self,
        network: DenoisingUNet | Backend,
        *,
        dtype: torch.dtype = torch.float32,
        name: str = "custom",
        pipeline: Pipeline = default_pipeline,
        steps: int = NUM_TIMESTEPS,
        batch: int | None = None,
        batch_invariant: bool | None = None,
    ) -> None:
        self.backend = TorchBackend(network, dtype) if isinstance(network, DenoisingUNet) else network
        self.device, self.dtype = self.backend.device, self.backend.dtype
        self.name, self.pipeline = name, pipeline
        self.steps = whole_number("steps", steps, 1, NUM_TIMESTEPS)
        self._original: Original | None = None
        self._process = os.getpid()
        fitting = batch_size(self.backend.config, DEFAULT.patch, self.dtype, self.device)
        shared = self.device.type != "cpu" if batch_invariant is None else not batch_invariant
        self._batches = AdaptiveBatcher(fitting if batch is None else whole_number("batch", batch, 1), shared=shared)

    @classmethod
    def from_pretrained(
        cls,
        model: str | PathLike[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        pipeline: Pipeline = default_pipeline,
        batch_invariant: bool | None = None,
    ) -> "Refiner":
        """Loads weights.

        In the default pipeline, the steps are those with which the weights refine best, where their file says so.

        Args:
            model: Nothing for the bundled model, or an alias, a folder, a `.safetensors` file, a Hub id `owner/name` or
                an `https://` address, see `weights.resolve`; or an `.onnx` file that `segrefiner export onnx` wrote.
            device: "cpu", "cuda", "cuda:1", "mps" (the GPU of Apple's processors, which computes the network alone) or
                "auto": the one that the environment variable `SEGREFINER_DEVICE` names, or else CUDA where there is
                one, an Apple GPU that computes these weights as a CPU does, or the CPU.
            dtype: "auto" (bfloat16 where a CPU computes it natively, float16 on CUDA, float32 where neither is exact
                enough for the weights), "fp32", "bf16" or "fp16".
            backend: "torch", "onnxruntime" or "openvino"; the last two take an `.onnx` file, the first does not. "auto"
                is ONNX Runtime for such a file and PyTorch for others.
            pipeline: `default_pipeline`, or one of the two published ones.
            batch_invariant: Whether a mask's result is the same to the bit whatever else is refined with it; by default
                on a CPU.

        Raises:
            CheckpointError: The weights cannot be found or are not as expected.
            InputError: There is no such device, dtype or backend, or not for these weights.
            MissingExtraError: The backend is not installed.

        >>> refiner = Refiner.from_pretrained(device="cpu", dtype="fp32")
        >>> refiner.device, refiner.dtype
        (device(type='cpu'), torch.float32)
        >>> 1 <= refiner.steps <= 6
        True
        """
        target = choose_device(device)
        use_threads()
        revive(target)
        is_free = device == "auto" and environment.device() == "auto"
        opened = open_model(model, target, dtype=dtype, backend=backend, instead=is_free)
        refiner = cls(
            opened.backend,
            name=opened.name,
            pipeline=pipeline,
            steps=opened.steps if pipeline is default_pipeline else NUM_TIMESTEPS,
            batch_invariant=batch_invariant,
        )
        refiner._original = opened.original
        where = getattr(opened.backend, "runs_on", refiner.device)
        _log.info("%s computes on %s in %s, with %d steps", refiner.name, where, refiner.dtype, refiner.steps)
        return refiner

    def save_pretrained(self, folder: str | PathLike[str]) -> Path:
        """Writes the weights where `from_pretrained` finds them.

        Weights that came from a file are that file again, byte for byte. Others keep every parameter exactly.

        Args:
            folder: Where to; created if need be.

        Returns:
            The file `model.safetensors` in the folder.

        Raises:
            CheckpointError: The weights' file was changed after it was loaded, or a parameter is no number.
            InputError: The model is an `.onnx` file, which cannot be turned back into weights.
            OutputError: The file cannot be written.

        >>> path = refiner.save_pretrained("my_model")
        >>> print(path)
        my_model/model.safetensors
        >>> Refiner.from_pretrained("my_model").steps == refiner.steps
        True
        """
        target = place_in(Path(folder))
        if self._original is not None:
            self._original.copy_to(target)
        elif isinstance(self.backend, TorchBackend):
            save_network(self.backend.network, target, steps=self.steps)
        else:
            raise InputError(f"{self.name!r} is an ONNX model, not weights: copy its file instead")
        return target

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = MESSAGE,
        license: str | None = None,
    ) -> str:
        """Puts the weights on the Hugging Face Hub, with a card that says what they are.

        Args:
            repository: `owner/name`, made if there is none.
            private: Whether a repository that is made is for its owner alone.
            token: That may write; by default the one that `hf auth login` or `HF_TOKEN` gave.
            revision: Branch to write to, made if there is none; by default the main one.
            commit_message: Of the commit.
            license: As the Hub abbreviates licences, such as "apache-2.0".

        Returns:
            The address of the commit.

        Raises:
            OutputError: The Hub does not take it; and what `save_pretrained` raises.

        >>> refiner = Refiner.from_pretrained()
        >>> address = refiner.push_to_hub("me/my-refiner", private=True, license="apache-2.0")
        >>> print(address)
        https://huggingface.co/me/my-refiner/commit/...
        """
        with TemporaryDirectory(prefix="segrefiner-") as folder:
            path = self.save_pretrained(folder)
            return push(path, repository, private=private, token=token, revision=revision, message=commit_message,
                        license=license)  # fmt: skip

    def __call__(
        self,
        image: ImageSource | Photo,
        mask: MaskSource,
        options: Options = PLAIN,
        *,
        threshold: float | None = None,
        on_progress: OnProgress = silent,
        **changed: Unpack[OptionFields],
    ) -> Result:
        """Refines one mask.

        Args:
            image: The photo: a path, a PIL image or `(H, W, 3)` uint8 RGB; see `reading.read_photo` for what else
                works.
            mask: Its coarse mask: a path, a PIL image or `(H, W)` bool, {0, 1}, {0, 255} or float probabilities.
            options: How it is refined.
            threshold: What counts as foreground in a mask of more than two values, on the values as stored.
            on_progress: Called after each network evaluation.
            changed: Fields of `Options` that are to be others, such as `seed=1`.

        Returns:
            The refined mask. An empty or full mask comes back as it is, and the report says so.

        Raises:
            InputError: A file, array or number is not as described; the message says what to do.

        Warns:
            InputWarning: Something of the pair had to be guessed, which the report says as well. Not for a photo from
                `reading.read_photo`, which has been asked for its notes.

        >>> result = refiner("photo.jpg", "coarse.png", max_shift=8)
        >>> result.mask.shape, result.mask.dtype
        ((96, 128), dtype('bool'))
        >>> result.report.note
        ''
        """
        return next(self.many([(image, mask)], options, threshold=threshold, on_progress=on_progress, **changed))

    def many(
        self,
        pairs: Iterable[tuple[ImageSource | Photo, MaskSource]],
        options: Options = PLAIN,
        *,
        threshold: float | None = None,
        on_progress: OnProgress = silent,
        **changed: Unpack[OptionFields],
    ) -> Iterator[Result]:
        """Refines masks of one photo or of several.

        A mask's result is that of a call of its own: to the bit where the refiner is `batch_invariant`, as on a CPU by
        default, and up to rounding where it is not. A photo that consecutive pairs share, the same object or the same
        path, is decoded once.

        Args:
            pairs: Photos and masks, each as in a call; read a few ahead of the results.
            options: How all of them are refined.
            threshold: As in a call.
            on_progress: Called after each network evaluation, which may be of several masks.
            changed: Fields of `Options` that are to be others.

        Returns:
            The results in order; `report.seconds` is a mask's share of its group's time.

        Raises:
            InputError: As a call does, at the pair in question, after the results of all pairs before it; what is asked
            for is checked at once.

        >>> pairs = [("photo.jpg", "coarse.png"), ("photo.jpg", "other.png")]
        >>> for result in refiner.many(pairs, seed=1):
        ...     print(result.mask.shape, result.report.agreement > 0.5)
        (96, 128) True
        (96, 128) True
        """
        return self._refined(triples(pairs), options.changed(**changed), threshold, on_progress)

    def instances(
        self,
        image: ImageSource | Photo,
        masks: Iterable[MaskSource],
        boxes: Iterable[Sequence[float]] | None = None,
        options: Options = PLAIN,
        *,
        threshold: float | None = None,
        separate: bool = False,
        on_progress: OnProgress = silent,
        **changed: Unpack[OptionFields],
    ) -> Iterator[Result]:
        """Refines the masks of one photo's objects, as `many` does.

        Args:
            image: The photo, as in a call.
            masks: `(N, H, W)`, or a list or iterable of masks as in a call.
            boxes: `(N, 4)`, `x0, y0, x1, y1` in pixels, of the objects, as an array, a tensor or a list. A mask with a
                box is one object, in however many parts, and the network sees all of the box: of use where coarse masks
                lack much of their objects.
            options: How all of them are refined.
            threshold: As in a call.
            separate: Whether no mask gains pixels at another one's expense: refined masks then overlap at most where
                coarse ones do, and results come when all masks are refined. By default each is what `many` gives.
            on_progress: Called after each network evaluation, which may be of several masks.
            changed: Fields of `Options` that are to be others.

        Returns:
            The results in order.

        Raises:
            InputError: As a call does; and for boxes that are not as described, or not as many as masks.

        >>> masks = ["coarse.png", "other.png"]
        >>> boxes = [[20, 20, 80, 80], [80, 10, 125, 60]]
        >>> results = list(refiner.instances("photo.jpg", masks, boxes, separate=True))
        >>> len(results), results[0].mask.shape
        (2, (96, 128))
        """
        options = options.changed(**changed)
        try:
            # Without boxes to count, masks are taken from an iterable when their turn comes.
            given = iter(masks) if boxes is None else list(masks)
        except TypeError as error:
            raise InputError(f"masks are {shown(masks)}: expected (N, H, W), or a list of masks") from error
        photo = read_photo(image)
        places = whole_boxes(boxes, len(given), photo.pixels.shape[:2]) if isinstance(given, list) else repeat(None)
        located = ((photo, mask, box) for mask, box in zip(given, places, strict=False))
        results = self._refined(located, options, threshold, on_progress, separate)
        return results if isinstance(image, Photo) else _warned(results)

    def _refined(
        self,
        triples: Iterable[tuple[ImageSource | Photo, MaskSource, Box | None]],
        options: Options,
        threshold: float | None,
        on_progress: OnProgress,
        separate: bool = False,
    ) -> Iterator[Result]:
        tasks, coarse = read_tasks(triples, self.device, options.seed, threshold), deque[Tensor]()

        def remembered() -> Iterator[MaskTask]:
            for task in tasks:
                coarse.append(task.mask)
                yield task

        results = self.run(remembered() if separate else tasks, options, on_progress=on_progress)
        if not separate:
            return results
        reported = ((coarse.popleft().numpy(), result.probability, result.report) for result in results)
        return (Result(one >= 0.5, one, report) for one, report in separate_reported(reported))

    def run(
        self, jobs: Iterator[MaskTask], options: Options = PLAIN, *, on_progress: OnProgress = silent
    ) -> Iterator[Result]:
        """Refines tasks that are ready for the pipeline: the photos on the device, the masks on the CPU.

        The report on a part of a photo is about the chosen object, and its shares are of the whole photo.

        Args:
            jobs: Read a few ahead of the results. Each has a seed of its own.
            options: How all of them are refined. A part holds `max_shift` pixels around the object's area, where it is
                to hold exactly.
            on_progress: Called after each network evaluation, which may be of several masks.

        Returns:
            The results in order.

        >>> import torch
        >>> from segrefiner.refinement.pipelines.tasks import MaskTask
        >>> photo, mask = torch.zeros(3, 48, 64, dtype=torch.uint8), torch.zeros(48, 64, dtype=torch.bool)
        >>> [result] = refiner.run(iter([MaskTask(photo, mask, seed=0)]))
        >>> result.report.note
        'the mask is empty: returned as it is'
        """
        steps = self.steps if options.steps is None else options.steps

        refined = self._refined_groups(jobs, GroupSettings(steps, options, self.name), on_progress)
        return (Result((probability >= 0.5).numpy(), probability.numpy(), report) for probability, report in refined)

    def _refined_groups(
        self, jobs: Iterator[MaskTask], settings: GroupSettings, on_progress: OnProgress
    ) -> Iterator[tuple[Tensor, Report]]:
        if isinstance(self.backend, TorchBackend):
            revive(self.device)
        else:
            check_own(self._process, self.backend)
        pipeline = partial(
            self.pipeline, self.backend, steps=settings.steps, batches=self._batches, on_progress=on_progress
        )
        yield from refine_groups(pipeline, jobs, self.device, settings)


def _warned(results: Iterable[Result]) -> Iterator[Result]:
    for result in results:
        warn_of(result.report.warnings)
        yield result
