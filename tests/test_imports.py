"""The package's door, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import segrefiner

SOURCE = Path(segrefiner.__file__).parent
LEAVES = {
    "arrays",
    "options",
    "rasters",
    "exif",
    "output",
    "geometry",
    "image_encoder",
    "norm",
    "losses",
    "metrics",
    "coarse",
    "diffusion",
    "overlay",
    "grids",
    "svg",
}
TOPS = {"cli"}
# What leaves share.
SHARED = {"errors", "arrays", "options"}


def imports(path: Path) -> set[str]:
    """Names of the sibling modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segrefiner."):
            found.add(node.module.split(".")[1])
    return found


def test_leaves_import_no_sibling_but_what_all_share() -> None:
    for name in LEAVES:
        assert imports(SOURCE / f"{name}.py") <= SHARED, name
    reading = {"arrays", "rasters", "side_data", "exif", "file_checks", "decoding"}
    assert imports(SOURCE / "pictures.py") <= SHARED | reading
    assert imports(SOURCE / "meaning.py") <= SHARED | reading | {"pictures"}
    assert imports(SOURCE / "io.py") <= SHARED | reading | {"pictures", "meaning", "scales", "turns"}
    assert imports(SOURCE / "scales.py") <= SHARED | reading | {"pictures", "meaning"}
    assert imports(SOURCE / "turns.py") <= SHARED | reading
    # The network is made of parts.
    assert imports(SOURCE / "unet.py") <= SHARED | {"image_encoder", "norm"}


def test_nothing_imports_the_tops() -> None:
    for path in SOURCE.glob("*.py"):
        assert not imports(path) & TOPS or path.name == "__main__.py", path.name


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import segrefiner, sys; print([m for m in ('torch', 'scipy', 'PIL', 'numpy') if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_help_and_version_do_not_import_torch() -> None:
    for argument in ("--help", "--version"):
        code = (
            "import sys\nfrom segrefiner.cli import main\n"
            f"try:\n    main([{argument!r}])\nexcept SystemExit: pass\n"
            "print('torch' in sys.modules, 'numpy' in sys.modules)"
        )
        assert run(code).strip().endswith("False False")


def test_every_public_name_is_there() -> None:
    for name in segrefiner.__all__:
        assert getattr(segrefiner, name) is not None
    assert dir(segrefiner) == sorted(segrefiner.__all__)
