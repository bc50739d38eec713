"""Every process of ours has said how threads wait before it loads PyTorch, and the user has the last word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
PHOTO, MASK = str(EXAMPLES / "car.jpg"), str(EXAMPLES / "car_coarse.png")
POLICY = "OMP_WAIT_POLICY"

IN_PLACE_OF_TORCH = """
import os
print("torch is loaded with", os.environ.get("OMP_WAIT_POLICY"), flush=True)
raise ImportError("not the real one")
"""

WAYS = {
    "refine": ["-m", "segrefiner", "refine", PHOTO, MASK, "-o", "out.png"],
    "folder": ["-m", "segrefiner", "folder", "photos", "masks", "-o", "out"],
    "serve": ["-m", "segrefiner", "serve", "--port", "0", "--no-page"],
    "train": ["-m", "segrefiner", "train", "data", "-o", "run", "--device", "cpu"],
    "the installed command": [
        "-c",
        "from segrefiner.cli.main import main; main()",
        "refine",
        PHOTO,
        MASK,
        "-o",
        "out.png",
    ],
    "the Python API": ["-c", "from segrefiner import Refiner"],
}


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a package `torch` that says what it finds, and what commands ask for."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(IN_PLACE_OF_TORCH)
    for name, source in (("photos", "car.jpg"), ("masks", "car_coarse.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"car{source[-4:]}").write_bytes((EXAMPLES / source).read_bytes())
    return tmp_path


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder from which it imports first, with no policy but that of the environment given."""
    inherited = {name: value for name, value in os.environ.items() if name != POLICY}
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=inherited | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_policy_is_set_before_torch_is_loaded(way: str, stand_in: Path) -> None:
    done = run(WAYS[way], stand_in)
    assert done.stdout.splitlines()[:1] == ["torch is loaded with PASSIVE"], done.stderr


@pytest.mark.parametrize("way", ["refine", "the Python API"])
def test_what_the_user_has_set_is_kept(way: str, stand_in: Path) -> None:
    done = run(WAYS[way], stand_in, OMP_WAIT_POLICY="active")
    assert done.stdout.splitlines()[:1] == ["torch is loaded with active"], done.stderr


@pytest.mark.slow
def test_the_api_leaves_the_environment_as_it_was(tmp_path: Path) -> None:
    code = (
        "import os, segrefiner\nprint(os.environ.get('OMP_WAIT_POLICY'))\n"
        "segrefiner.Refiner\nprint(os.environ.get('OMP_WAIT_POLICY'))"
    )
    # OpenMP shows the settings that it has read.
    done = run(["-c", code], tmp_path, OMP_DISPLAY_ENV="true")
    assert done.stdout.split() == ["None", "None"]
    if POLICY in done.stderr:
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.mark.slow
def test_workers_inherit_it(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os\nfrom multiprocessing import get_context\nfrom click.testing import CliRunner\n"
        "from segrefiner.jobs.local import _pool\nfrom segrefiner.cli.main import main\n\n"
        "if __name__ == '__main__':\n"
        "    if os.environ.get('BY_COMMAND'):\n"
        "        CliRunner().invoke(main, ['report'])\n"
        "    with _pool(1) as pool:\n"
        "        print(pool.submit(os.getenv, 'OMP_WAIT_POLICY').result())\n"
        "    if os.environ.get('BY_COMMAND'):\n"
        "        for method in ('spawn', 'forkserver'):\n"
        "            with get_context(method).Pool(1) as pool:\n"
        "                print(pool.apply(os.getenv, ('OMP_WAIT_POLICY',)))\n"
    )
    assert run(["job.py"], tmp_path).stdout.split() == ["PASSIVE"]
    assert run(["job.py"], tmp_path, BY_COMMAND="1").stdout.split() == ["PASSIVE"] * 3
