"""What the tools take, as their schemas tell it to the agent's model."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..forms import Common, LabelFields

_Path = Annotated[str, Field(max_length=4096)]


class Paths(BaseModel):
    """Arguments that are no field of a form."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class RefineMask(Common):
    """Refine one coarse mask of a photo, and look at the result."""

    image: _Path = Field(description="Path of the photo.")
    mask: _Path = Field(description="Path of its coarse mask.")
    output: _Path | None = Field(None, description="PNG to write the refined mask to; without it the mask is answered.")
    soft: bool = Field(False, description="Write probabilities, 0-255, instead of 0 and 255.")
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="Foreground of a mask with more than two values, as stored."
    )
    replace: bool = Field(False, description="Whether a file that is there may be replaced.")


class RefineLabelMap(LabelFields):
    """Refine a label map of a photo: every pixel is decided among all labels."""

    image: _Path = Field(description="Path of the photo.")
    labels: _Path = Field(description="Path of its label map, a PNG of 8 or 16 bit, with or without a palette.")
    output: _Path = Field(description="PNG to write the refined label map to.")
    replace: bool = Field(False, description="Whether a file that is there may be replaced.")


class RefineFolder(Common):
    """Refine the masks in one folder of the photos in another.

    Without `plan` nothing is done: the answer says what would be done, and names a plan. Show it, then call again with
    the same arguments and this plan. A call stops after some minutes; the same call goes on.
    """

    images: _Path = Field(description="Folder of photos.")
    masks: _Path = Field(description="Folder of coarse masks, of the same names or as pattern says.")
    output: _Path = Field(description="Folder for the refined masks.")
    pattern: str | None = Field(
        None, max_length=500, description="A photo's masks, such as {parent}/{stem}_*.png; the same name if left out."
    )
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="Foreground of masks with more than two values, as stored."
    )
    write: Literal["mask", "soft", "soft16", "cutout"] = Field(
        "mask", description="Masks, probabilities in 8 or 16 bit, or the objects cut out."
    )
    plan: str | None = Field(None, max_length=64, description="What a call without it has named.")


class ExplainReport(Paths):
    """Say in plain words what a report means: what changed, what was held back and why."""

    report: dict[str, Any] | None = Field(
        None, description="Report of a mask or label map, or summary of a job, as a tool answered it."
    )
    file: _Path | None = Field(None, description="JSON file that holds one, instead.")
