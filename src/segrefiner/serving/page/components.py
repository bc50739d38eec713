"""The page's components and how they lie: what is given on the left, what comes out on the right."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from importlib import resources
from typing import Any, TypeAlias

import gradio as gr

from ...model.diffusion import NUM_TIMESTEPS
from .files import PageFile, PageFiles
from .pictures import LOOKS, PARTS

FROM_FILE, PAINTED, FROM_BOX = "A file", "I paint it", "A box"
WAYS = (FROM_FILE, PAINTED, FROM_BOX)

SAMPLES = ("woman", "man", "car")

BRUSH = "rgba(255, 64, 48, 0.7)"

CSS = """
.gradio-container { max-width: 1240px !important; width: 100% !important; min-width: 0 !important;
  margin: 0 auto !important; box-sizing: border-box; }
.gradio-container > .main { max-width: none !important; width: 100% !important; min-width: 0 !important;
  padding: 1.25rem !important; box-sizing: border-box; }
@media (max-width: 640px) { .gradio-container > .main { padding: 0.75rem !important; } }
.lead h1 { font-size: 1.6rem; margin: 0 0 0.15rem; letter-spacing: -0.015em; }
.lead p { font-size: 1rem; color: var(--body-text-color-subdued); margin: 0; }
.empty { min-height: 460px; display: flex; align-items: center; justify-content: center; text-align: center;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); padding: 1.5rem; line-height: 1.6;
  color: var(--body-text-color-subdued); }
@media (max-width: 640px) { .empty { min-height: 200px; } }
.hint { color: var(--body-text-color-subdued); font-size: 0.9rem; margin: 0; }
.reasons { list-style: none; padding: 0; line-height: 1.6; }
.key { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; margin: 0 0.3em 0 0.1em; }
#samples .grid-wrap { height: auto !important; min-height: 0 !important; padding: 0; }
#samples .thumbnail-item { aspect-ratio: 4 / 3; }
#samples img { object-position: 50% 22%; }
.numbers, .numbers tr, .numbers th, .numbers td { border: 0 !important; }
.numbers { width: 100%; border-collapse: collapse; font-size: 0.95rem; }
.numbers th, .numbers td { padding: 0.4rem 0.2rem !important; }
.numbers tr + tr { border-top: 1px solid var(--border-color-primary) !important; }
.numbers th { text-align: left; font-weight: 400 !important; color: var(--body-text-color-subdued); }
.numbers td { text-align: right; font-variant-numeric: tabular-nums; }
.form:has(> #divider):not(:focus-within) { position: absolute; width: 1px; height: 1px; overflow: hidden;
  border: 0; clip-path: inset(50%); }
.html-container:has(.hint, .numbers, .reasons) { padding: 0 !important; }
#look label, #part label { padding: 0.35rem 0.6rem; }
#downloads { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem; }
@media (max-width: 640px) { #results .tab-container button { padding: 0 0.25rem; font-size: 0.8rem; } }
@media (max-width: 640px) { #downloads { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""

SCROLL = """() => { if (matchMedia("(max-width: 640px)").matches)
  document.querySelector("#status, #results").scrollIntoView({ block: "start" }); }"""
"""On a phone, where it comes out below what is given."""

_LEAD = """# segrefiner
Give a photo and a rough mask of an object; get the mask that follows its contour.
What you give is deleted half an hour after its last use."""

_EMPTY = """<div class="empty"><p>The difference appears here.<br>Pick a sample to see one at once.</p></div>"""

LEGEND = (
    '<p class="hint">Drag the handle, or press Tab and an arrow key: '
    '<span class="key" style="background:#ff4030"></span>rough mask on the left, '
    '<span class="key" style="background:#28e15a"></span>refined mask on the right.</p>'
)
_UNSURE = '<p class="hint">Amber where the network is unsure, the brighter the more.</p>'
_NOTHING_HELD = '<p class="hint">Nothing was held back: every change that the network made is in the result.</p>'
_WAY = (
    '<p class="hint">Blue is the mask within the diffusion, for the object as a whole: after each step, those pixels '
    "of which the network is sure enough have moved from rough to fine. The result comes after closer looks along the "
    "contour, which are not shown.</p>"
)


@dataclass
class Inputs:
    """What is given."""

    photo: gr.Image
    way: gr.Radio
    masks: gr.File
    objects: gr.Dropdown
    canvas: gr.ImageEditor
    left: gr.Number
    top: gr.Number
    right: gr.Number
    bottom: gr.Number
    steps: gr.Slider
    max_shift: gr.Number
    strength: gr.Slider
    seed: gr.Number
    soft: gr.Checkbox
    model: gr.Dropdown

    def all(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [getattr(self, one.name) for one in fields(self)]


@dataclass
class Outputs:
    """What comes out, of the object that is looked at."""

    chosen: gr.Dropdown
    slider: gr.ImageSlider
    numbers: gr.HTML
    closeup: gr.Image
    unsure: gr.Image
    held: gr.Image
    held_why: gr.HTML
    way: gr.Image
    mask_file: gr.DownloadButton
    soft_file: gr.DownloadButton
    cutout_file: gr.DownloadButton
    coco_file: gr.DownloadButton
    labelme_file: gr.DownloadButton
    yolo_file: gr.DownloadButton

    def all(self) -> list[Any]:
        """In the order in which handlers give them."""
        return [getattr(self, one.name) for one in fields(self)]

    def files(self) -> list[Any]:
        """Those of `all` that are downloads, which are its last ones."""
        return [one for one in self.all() if isinstance(one, gr.DownloadButton)]


def sample_files(files: PageFiles) -> list[tuple[PageFile, PageFile]]:
    """The samples as files of the page, which stay: each photo and its rough mask."""
    source = resources.files("segrefiner") / "serving" / "page" / "samples"

    def added(name: str) -> PageFile:
        return files.add(None, name, (source / name).read_bytes())

    return [(added(f"{name}.jpg"), added(f"{name}_rough.png")) for name in SAMPLES]


def theme() -> Any:
    """Calm, and with the fonts of the visitor's system: others would be fetched from another host."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.emerald,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def lead() -> None:
    """What this is, in two lines."""
    gr.Markdown(_LEAD, elem_classes="lead")


def _samples(photos: Sequence[str]) -> gr.Gallery:
    """Photos that are there already, by their paths."""
    return gr.Gallery(
        list(zip(photos, SAMPLES, strict=True)),
        label="Samples",
        show_label=False,
        container=False,
        columns=3,
        rows=1,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="samples",
    )


def inputs(models: Sequence[str], steps: int, sample_photos: Sequence[str]) -> tuple[Inputs, list[Any], gr.Gallery]:
    """The components of the left side: what is given, the groups for files, painting and boxes, and the samples."""
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=260,
        buttons=[],
        elem_id="photo",
    )
    gallery = _samples(sample_photos)
    way = gr.Radio(WAYS, value=FROM_FILE, label="Where the rough mask comes from", elem_id="way")
    masks = gr.File(
        label="Mask files, or a COCO or LabelMe JSON",
        file_count="multiple",
        file_types=["image", ".json"],
        height=130,
        elem_id="masks",
    )
    objects = gr.Dropdown(
        [],
        value=[],
        label="Objects to refine",
        multiselect=True,
        visible=False,
        interactive=True,
        elem_id="objects",
    )
    with gr.Column(visible=False) as painting:
        canvas = gr.ImageEditor(
            label="Paint roughly over the object",
            type="numpy",
            image_mode="RGBA",
            sources=[],
            transforms=[],
            layers=False,
            brush=gr.Brush(default_size=28, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
            eraser=gr.Eraser(default_size=28),
            height=430,
            buttons=[],
            elem_id="canvas",
        )
    with gr.Column(visible=False) as boxing:
        gr.HTML(
            '<p class="hint">The mask is searched inside the box around what you painted, or inside these numbers, in '
            "pixels of the photo.</p>",
            padding=False,
        )
        with gr.Row():
            left, top, right, bottom = (
                gr.Number(value=None, label=side, precision=0, minimum=0, min_width=70, elem_id=side.lower())
                for side in ("Left", "Top", "Right", "Bottom")
            )
    settings = _settings(models, steps)
    given = Inputs(photo, way, masks, objects, canvas, left, top, right, bottom, *settings)
    return given, [masks, painting, boxing], gallery


_Settings: TypeAlias = tuple[gr.Slider, gr.Number, gr.Slider, gr.Number, gr.Checkbox, gr.Dropdown]


def _settings(models: Sequence[str], steps: int) -> _Settings:
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        quality = gr.Slider(
            1,
            NUM_TIMESTEPS,
            value=steps,
            step=1,
            label="Quality: steps",
            info=f"This model is at its best with {steps}. More take longer and show more of the way.",
        )
        max_shift = gr.Number(
            value=None,
            label="The contour may move by, in pixels",
            info="Empty: as far as it has to.",
            minimum=0,
            elem_id="max_shift",
        )
        strength = gr.Slider(
            0,
            1,
            value=1,
            step=0.05,
            label="Boldness",
            info="1 makes every change that seems right, less only those that are surer, 0 none.",
        )
        seed = gr.Number(value=0, label="Seed", info="The same number gives the same result.", precision=0, minimum=0)
        soft = gr.Checkbox(True, label="Soft edge of the cut-out", info="Otherwise a pixel is in it or not.")
        model = gr.Dropdown(list(models), value=models[0], label="Model", visible=len(models) > 1)
    return quality, max_shift, strength, seed, soft, model


@dataclass
class Stage:
    """Where what comes out is shown, and how it is looked at."""

    empty: gr.HTML
    results: gr.Column
    look: gr.Radio
    part: gr.Radio
    divider: gr.Slider


def outputs() -> tuple[Outputs, Stage]:
    """The components of the right side."""
    empty = gr.HTML(_EMPTY, elem_id="status")
    with gr.Column(visible=False, elem_id="results") as results:
        chosen = gr.Dropdown([], label="Object", visible=False, interactive=True, elem_id="object")
        slider = gr.ImageSlider(
            label="Before and after", show_label=False, interactive=False, buttons=["fullscreen"], max_height=620,
            elem_id="slider", format="webp",
        )  # fmt: skip
        divider = gr.Slider(0, 100, value=50, step=5, label="Divider, by arrow keys", elem_id="divider")
        gr.HTML(LEGEND, padding=False)
        with gr.Row():
            look = gr.Radio(LOOKS, value=LOOKS[0], label="Show the mask", min_width=280, elem_id="look")
            part = gr.Radio(PARTS, value=PARTS[0], label="Look at", min_width=280, elem_id="part")
        with gr.Row(elem_id="downloads"):
            downloads = [
                gr.DownloadButton(label, size="sm", min_width=120, interactive=False, elem_id=name)
                for label, name in (
                    ("Mask, PNG", "mask_file"),
                    ("Soft mask, 16 bit", "soft_file"),
                    ("Cut-out, PNG", "cutout_file"),
                    ("COCO, JSON", "coco_file"),
                    ("LabelMe, JSON", "labelme_file"),
                    ("YOLO, txt", "yolo_file"),
                )
            ]
        with gr.Tabs():
            with gr.Tab("Numbers"):
                figures = gr.HTML(elem_id="numbers", padding=False)
            with gr.Tab("Contours"):
                closeup = _picture("Rough and refined contour", "closeup")
            with gr.Tab("Unsure"):
                unsure = _picture("Where the network is unsure", "unsure")
                gr.HTML(_UNSURE, padding=False)
            with gr.Tab("Held back"):
                held = _picture("What was held back", "held")
                held_why = gr.HTML(_NOTHING_HELD, padding=False, elem_id="held_why")
            with gr.Tab("The way"):
                way = _picture("From rough to fine", "animation")
                gr.HTML(_WAY, padding=False)
    return Outputs(chosen, slider, figures, closeup, unsure, held, held_why, way, *downloads), Stage(
        empty, results, look, part, divider
    )


def _picture(label: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        show_label=False,
        interactive=False,
        buttons=["fullscreen"],
        height=420,
        elem_id=name,
        alt_text=label,
    )


def number_table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as an HTML table."""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="numbers">{cells}</table>'


def held_legend(reasons: Sequence[tuple[str, tuple[int, int, int], int]]) -> str:
    """Why changes were held back: sentence, colour and number of pixels of each reason, as HTML."""
    if not reasons:
        return _NOTHING_HELD
    lines = "".join(
        f'<li><span class="key" style="background:#{bytes(colour).hex()}"></span>{escape(why)} '
        f"({pixels} pixel{'s' * (pixels != 1)})</li>"
        for why, colour, pixels in reasons
    )
    return f'<ul class="hint reasons">{lines}</ul>'
