"""The page in a browser, from a sample to downloads; it must not send a request to any other host."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import segrefiner
from segrefiner.imaging.coco_masks import decode_rle

for package in ("segrefiner.serving.page.page", "segrefiner.serving.api", "pymatting"):
    pytest.importorskip(package)
playwright = pytest.importorskip("playwright.sync_api")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
SAMPLES = Path(segrefiner.__file__).parent / "serving" / "page" / "samples"
PATIENCE = 60_000
"""Milliseconds: only on a machine with much else to do does anything take long."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: install one of {', '.join(BROWSERS)}"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    temporary = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from segrefiner.cli.main import main; main()",
            "serve",
            "--port",
            "0",
            "--max-megapixels",
            "4",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
    )
    assert process.stderr is not None
    yield process.stderr.readline().partition(": ")[0]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "" and process.returncode == 0
    assert not list(temporary.glob("segrefiner-page-*")), "something of the visitors is left"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=BROWSER,
            args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"],
        )
        yield opened
        opened.close()


def visit(browser: Any, server: str, width: int) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, foreign, failed = context.new_page(), [], []
    page.on("request", lambda request: foreign.append(request.url))
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    page.set_default_timeout(PATIENCE)
    page.goto(server)
    page.wait_for_selector("#samples button")
    yield page
    assert not [url for url in foreign if not url.startswith((server, "data:", "blob:"))]
    assert not failed
    context.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    yield from visit(browser, server, 1200)


@pytest.fixture
def phone(browser: Any, server: str) -> Iterator[Any]:
    yield from visit(browser, server, 390)


def give(page: Any, name: str, *paths: Path) -> None:
    page.locator(f"#{name} input[type=file]").set_input_files([str(path) for path in paths])


def refined(page: Any) -> None:
    """Waits until the result and its files are there."""
    page.wait_for_selector("#slider img >> nth=1")
    page.wait_for_selector("#yolo_file:not([disabled])")


def download(page: Any, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click(f"#{name}")
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def divided(page: Any) -> float:
    """Where the slider's divider stands, in percent."""
    style = page.locator("#slider img").nth(1).get_attribute("style")
    return float(re.search(r"inset\(0px 0px 0px ([\d.]+)%", style)[1])


def test_a_sample_is_refined_compared_and_downloaded(page: Any, tmp_path: Path) -> None:
    page.locator("#samples img").nth(1).click()
    refined(page)
    assert divided(page) == 50
    assert "unknown" not in page.locator("#masks").inner_text()
    page.wait_for_timeout(500)  # Until it no longer moves to its place.
    handle = page.locator("#slider [data-testid=slider]").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=4)
    page.mouse.up()
    assert divided(page) > 55
    with Image.open(SAMPLES / "man.jpg") as photo:
        size = photo.size
    mask, soft, cutout = (picture(download(page, f"{name}_file", tmp_path)) for name in ("mask", "soft", "cutout"))
    assert mask.shape == size[::-1] and set(np.unique(mask)) == {0, 255}
    assert soft.dtype == np.uint16 and ((soft >= 32768) == (mask > 0)).all()
    assert cutout.shape == (*mask.shape, 4) and not cutout[soft == 0].any()
    (annotation,) = json.loads(download(page, "coco_file", tmp_path).read_text())["annotations"]
    assert (decode_rle(annotation["segmentation"], size[::-1]) == (mask > 0)).all()
    assert "Pixels changed" in page.locator("#numbers").inner_text()
    labelme = json.loads(download(page, "labelme_file", tmp_path).read_text())
    assert labelme["imagePath"] == "man.jpg" and [one["label"] for one in labelme["shapes"]] == ["man_rough"]
    assert download(page, "yolo_file", tmp_path).read_text().startswith("0 0.")
    for tab, name in (("Contours", "closeup"), ("Unsure", "unsure"), ("Held back", "held"), ("The way", "animation")):
        page.get_by_role("tab", name=tab).click()
        shown = page.locator(f"#{name} img")
        shown.wait_for()
        page.wait_for_function("image => image.naturalWidth > 100", arg=shown.element_handle())


def test_own_files_are_objects_to_choose_from(page: Any, tmp_path: Path) -> None:
    for name, columns in (("left", slice(0, 90)), ("right", slice(120, 200))):
        mask = np.zeros((150, 220), np.uint8)
        mask[20:120, columns] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    pixels = np.random.default_rng(0).integers(0, 256, (150, 220, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "mine.png")
    give(page, "photo", tmp_path / "mine.png")
    page.wait_for_selector("#photo img")
    give(page, "masks", tmp_path / "left.png", tmp_path / "right.png")
    page.wait_for_function("document.querySelector('#masks').innerText.includes('right')")
    page.click("#refine")
    refined(page)
    path = download(page, "coco_file", tmp_path)
    assert path.name == "mine_coco.json" and len(json.loads(path.read_text())["annotations"]) == 2
    before = page.locator("#slider img").nth(1).get_attribute("src")
    page.locator("#object input").click()
    page.get_by_role("option", name="right").click()
    page.wait_for_function("was => document.querySelectorAll('#slider img')[1].src !== was", arg=before)
    page.wait_for_selector("#mask_file:not([disabled])")
    assert download(page, "mask_file", tmp_path).name == "mine_right_mask.png"


def test_objects_of_an_annotation_file_are_chosen(page: Any, tmp_path: Path) -> None:
    rings = ([20, 10, 90, 10, 90, 120, 20, 120], [120, 20, 200, 20, 200, 120, 120, 120])
    document = {
        "images": [{"id": 1, "file_name": "photos/mine.png", "width": 220, "height": 150}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "segmentation": [ring]}
            for number, ring in enumerate(rings, 1)
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(document))
    pixels = np.random.default_rng(0).integers(0, 256, (150, 220, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "mine.png")
    give(page, "photo", tmp_path / "mine.png")
    page.wait_for_selector("#photo img")
    give(page, "masks", tmp_path / "labels.json")
    page.locator("#objects").get_by_text("dog").wait_for()
    # The last of the chosen ones goes.
    page.locator("#objects input").focus()
    page.keyboard.press("Backspace")
    # The list that opens offers it again.
    page.wait_for_function("document.querySelectorAll('#objects .token').length === 1")
    page.keyboard.press("Escape")
    page.click("#refine")
    refined(page)
    refined_file = json.loads(download(page, "coco_file", tmp_path).read_text())
    assert [one["name"] for one in refined_file["categories"]] == ["cat"]
    assert len(refined_file["annotations"]) == 1
    page.get_by_role("tab", name="Held back").click()
    page.locator("#held img").wait_for()
    assert page.locator("#held_why").inner_text().endswith((".", ")"))


def test_what_is_painted_is_refined_or_searched_around(page: Any, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 700, "height": 700})  # Painting is slow without a GPU.
    give(page, "photo", SAMPLES / "man.jpg")
    page.wait_for_selector("#photo img")
    page.get_by_label("I paint it").check()
    canvas = page.locator("#canvas canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    x = place["x"] + place["width"] / 2
    page.mouse.move(x, place["y"] + 0.3 * place["height"])
    page.mouse.down()
    page.mouse.move(x, place["y"] + 0.7 * place["height"], steps=6)
    page.mouse.up()
    page.wait_for_timeout(300)
    page.click("#refine")
    refined(page)
    painted = picture(download(page, "mask_file", tmp_path))
    assert painted.shape == (825, 550) and 0.01 < (painted > 0).mean() < 0.6
    page.get_by_label("A box").check()
    for side, value in (("left", 120), ("top", 10), ("right", 420), ("bottom", 810)):
        page.locator(f"#{side} input").fill(str(value))
    before = page.locator("#slider img").nth(1).get_attribute("src")
    page.click("#refine")
    page.wait_for_function("was => document.querySelectorAll('#slider img')[1].src !== was", arg=before)
    page.wait_for_selector("#mask_file:not([disabled])")
    searched = picture(download(page, "mask_file", tmp_path))
    assert (searched != painted).any() and 0.05 < (searched > 0).mean() < 0.6


def told(page: Any) -> str:
    toast = page.locator(".toast-body").first
    toast.wait_for()
    return toast.inner_text()


def test_what_is_wrong_is_told_in_a_sentence(page: Any, tmp_path: Path) -> None:
    page.click("#refine")
    assert "there is no photo" in told(page)
    page.locator(".toast-close").first.click()
    (tmp_path / "holiday.jpg").write_bytes(b"no photo at all")
    give(page, "photo", tmp_path / "holiday.jpg")
    page.wait_for_timeout(500)
    page.click("#refine")
    message = told(page)
    assert "holiday.jpg" in message and "Traceback" not in message and "/gradio" not in message
    assert "segrefiner-page" not in message


def test_a_phone_shows_all_of_it(phone: Any) -> None:
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not phone.evaluate(wide)
    phone.locator("#samples img").first.click()
    refined(phone)
    assert not phone.evaluate(wide)
    for tab in ("Numbers", "Contours", "Unsure", "Held back", "The way"):
        assert phone.get_by_role("tab", name=tab).is_visible(), tab
    for way in ("I paint it", "A box"):
        phone.get_by_label(way).check()
        phone.wait_for_timeout(1000)
        assert not phone.evaluate(wide)
    phone.get_by_text("Settings").click()
    assert not phone.evaluate(wide)


def test_hands_on_the_keyboard_are_enough(page: Any) -> None:
    page.locator("#samples button").nth(0).focus()
    page.keyboard.press("Enter")
    refined(page)
    divider = page.locator("#divider input[type=range]")
    divider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("!document.querySelectorAll('#slider img')[1].style.clipPath.includes(' 50%')")
    assert divided(page) > 50
    page.locator("#look input").nth(1).focus()
    before = page.locator("#slider img").nth(1).get_attribute("src")
    page.keyboard.press("Space")
    page.wait_for_function("was => document.querySelectorAll('#slider img')[1].src !== was", arg=before)


def test_nobody_reads_the_servers_files_or_calls_its_handlers(server: str) -> None:
    for path in ("file=/etc/hostname", "file=http://127.0.0.1:1/", "info", "call/refine", "runs", "../pyproject.toml"):
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{server}/gradio_api/{path}", timeout=10)
        assert caught.value.code in (404, 405)
        caught.value.close()
