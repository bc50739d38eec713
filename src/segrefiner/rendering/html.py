"""What all reports have in common: one HTML file with its style in it, tables, and pictures in the text."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Any, TypeAlias

import numpy.typing as npt
from PIL import Image

from .markdown import Table, numeric_columns

Array: TypeAlias = npt.NDArray[Any]

_LARGEST, _SMALLEST = (1200, 900), 800


def html_page(title: str, parts: Iterable[str]) -> str:
    """A whole page, without scripts and without anything from elsewhere; it has a dark mode.

    Args:
        title: Of the page, as plain text.
        parts: What stands in it, as HTML.
    """
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def html_table(table: Table) -> str:
    """A table that scrolls on its own where the page is too narrow."""
    header, lines = table
    starts = ["" if right else ' class="name"' for right in numeric_columns(table)]
    head = "".join(f"<th{start}>{escape(cell)}</th>" for start, cell in zip(starts, header, strict=True))
    body = ""
    for line in lines:
        cells = (f"<td{start}>{escape(cell)}</td>" for start, cell in zip(starts, line, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2126; --muted: #545d66; --line: #d5dae0; --paper: #ffffff;
  --good: #1f7fc4; --bad: #d9542b; --mark: #6a7b8c;
  --c0: #1a6fb3; --c1: #c64a17; --c2: #16795b; --c3: #8a48ad; --c4: #946a07; --c5: #5b6570; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8ebee; --muted: #a7b0b9; --line: #3a424b;
  --paper: #15191d; --good: #5db2ee; --bad: #f58a64; --mark: #93a4b5;
  --c0: #5fb4f2; --c1: #f6885c; --c2: #4cc79c; --c3: #c893e6; --c4: #d9b04a; --c5: #a9b4be; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ margin: .5rem 0; font-size: 1.6rem; line-height: 1.2; }}
h2 {{ margin: 2rem 0 .5rem; font-size: 1.2rem; }}
.lead {{ font-size: 1.15rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }}
.name {{ text-align: left; }}
th {{ color: var(--muted); font-weight: 600; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }}
.plots figure {{ margin: 0; max-width: 36rem; }}
.wide + .wide {{ margin-top: 1rem; }}
.grid img {{ max-width: none; width: max(100%, 60rem); }}
dl {{ columns: 22rem; column-gap: 2rem; font-variant-numeric: tabular-nums; }}
dl div {{ display: flex; justify-content: space-between; gap: 1rem; break-inside: avoid;
  border-bottom: 1px solid var(--line); padding: .2rem 0; }}
dt {{ color: var(--muted); }}
dd {{ margin: 0; text-align: right; overflow-wrap: anywhere; }}
figure {{ margin: 1rem 0; }}
.shots {{ display: flex; flex-wrap: wrap; align-items: start; gap: 1rem; }}
.shot {{ max-width: 100%; }}
@media (max-width: 40rem) {{ th, td {{ padding: .25rem .4rem; font-size: .85rem; }} th {{ white-space: normal; }}
  .plots svg {{ font-size: 15px; }} }}
figcaption, li {{ overflow-wrap: anywhere; }}
img {{ display: block; max-width: max(100%, 32rem); height: auto; margin-top: .4rem; }}
small, footer, summary {{ color: var(--muted); }}
footer {{ margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .5rem; font-size: .85rem;
  overflow-wrap: anywhere; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def data_uri(pixels: Array, largest: tuple[int, int] = _LARGEST) -> str:
    """A picture as text that stands in a page in place of an address; JPEG, of a size to look at.

    Args:
        pixels: `(H, W, 3)` uint8, RGB.
        largest: Width and height that it is shrunk to, at most.
    """
    picture = Image.fromarray(pixels)
    times = _SMALLEST // max(picture.size)
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    picture.thumbnail(largest, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
