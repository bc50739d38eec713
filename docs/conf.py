"""How Sphinx builds the documentation: `sphinx-build -W docs site`."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))

from segrefiner import __version__  # noqa: E402

PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = f"{PROJECT['urls']['Repository']}/blob/main"

project = "segrefiner"
author = "The segrefiner authors"
copyright = "The segrefiner authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
add_module_names = False
# Docstrings mark code by single backticks.
default_role = "code"

html_theme = "furo"
html_title = f"segrefiner {release}"
html_theme_options = {"source_edit_link": f"{REPOSITORY}/docs/{{filename}}"}
# Formulas are drawn by the reader's browser.
mathjax_path = "https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-mml-chtml.js"


def link_to_the_repository(app, docname: str, source: list[str]) -> None:
    """Pages link to files beside `docs/` as the repository shows them; on the site these lead there."""
    depth = docname.count("/")
    source[0] = source[0].replace("](" + "../" * (depth + 1), f"]({REPOSITORY}/")


def fences_to_directives(app, what: str, name: str, documented, options, lines: list[str]) -> None:
    """Docstrings show code in Markdown's fences, which reStructuredText does not know."""
    fenced, changed = False, []
    for line in lines:
        if line.lstrip().startswith("```"):
            indent = line[: len(line) - len(line.lstrip())]
            changed += [] if fenced else ["", f"{indent}.. code-block:: {line.strip('` ') or 'text'}", ""]
            fenced = not fenced
        else:
            changed.append(f"    {line}" if fenced and line else line)
    lines[:] = changed


def setup(app) -> None:
    """What Sphinx calls first."""
    # Before napoleon, which has 500.
    app.connect("autodoc-process-docstring", fences_to_directives, priority=400)
    app.connect("source-read", link_to_the_repository)
