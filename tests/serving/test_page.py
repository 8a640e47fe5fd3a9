"""The service's page in a real browser."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from tests.serving.browser import Watched, check_accessible, until
from tests.serving.conftest import ENGINE_ERROR, Running, jpeg, random_picture
from verydeep.nets.config import SegmentationConfig
from verydeep.segmentation.drawing import palette
from verydeep.serving import pages

EVIL = "<img src=x onerror=document.title=1>"


@pytest.fixture(scope="module")
def served(start: Callable[..., Running], folder: Path) -> Running:
    """A service of a, with boxes, of a network whose class has a name that must stay text, and of one for pixels."""
    net = vd.create("A", (EVIL, *"bcdefgh"), width=1 / 16, image_size=64, fc_width=24, seed=3).eval()
    vd.save(net, folder / "names.safetensors")
    about = SegmentationConfig("8s", "map", (1.0, 1.0))
    pixels = vd.create(
        "B", "xyz", width=1 / 16, image_size=64, fc_width=24, segmentation=about, initialization="he", seed=4
    )
    vd.save(pixels.eval(), folder / "pixels.safetensors")
    weights = [str(folder / f"{name}.safetensors") for name in ("a", "names", "pixels")]
    return start(*weights, "--localizer", str(folder / "boxes.safetensors"), "--memory", "1GiB")


@pytest.fixture
def watched(browser: Any, served: Running) -> Iterator[Watched]:
    here = Watched(browser, f"http://127.0.0.1:{served.port}/", viewport={"width": 1100, "height": 900})
    here.page.set_default_timeout(60_000)
    yield here
    here.close()


def upload(page: Any, *files: tuple[str, bytes]) -> None:
    given = [{"name": name, "mimeType": "image/jpeg", "buffer": content} for name, content in files]
    page.set_input_files("#files", given)


def test_upload_and_results(watched: Watched, folder: Path, rng: np.random.Generator) -> None:
    page, files = watched.page, [jpeg(random_picture(rng)) for _ in range(2)]
    upload(page, ("one.jpg", files[0]), ("two.jpg", files[1]))
    until(page, "document.querySelectorAll('.bars button').length == 10")
    for place, file in enumerate(reversed(files)):  # the last one given is on top
        expected = vd.predict(folder / "a.safetensors", file).top
        article = page.locator(".picture").nth(place)
        assert article.locator(".name").all_text_contents() == [label for label, _ in expected]
        shown = [float(text.removesuffix(" %")) for text in article.locator(".share").all_text_contents()]
        np.testing.assert_allclose(shown, [100 * posterior for _, posterior in expected], atol=0.51)
    until(page, "document.querySelectorAll('.boxes:not([hidden])').length == 2")
    clean = drawn(page)
    page.locator(".picture .boxes input").first.uncheck()
    assert drawn(page).sum() == 0 < clean.sum()


def drawn(page: Any) -> Any:
    url = page.evaluate("document.querySelector('.picture canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))), np.int64)


def test_heat_map_by_keyboard_and_its_slider(watched: Watched, rng: np.random.Generator) -> None:
    page = watched.page
    page.locator("#files").focus()
    upload(page, ("p.jpg", jpeg(random_picture(rng, 120, 300))))
    page.wait_for_selector(".boxes:not([hidden])")
    page.locator(".boxes input").uncheck()
    seen = []
    for _ in range(12):  # Tab reaches everything in the order in which it stands
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.className || document.activeElement.type"))
        if page.evaluate("document.activeElement.matches('.bars button')"):
            break
    assert "remove" in seen
    page.keyboard.press("Enter")
    page.wait_for_selector(".opacity:not([hidden])")
    assert page.locator(".bars button").first.get_attribute("aria-pressed") == "true"
    assert "Heat map of" in page.locator("#said").text_content()
    page.locator(".opacity input").focus()
    page.keyboard.press("End")
    opaque = drawn(page)
    assert (opaque[..., 3] == 255).all()
    assert opaque[..., :3].std() > 1
    page.keyboard.press("Home")
    assert drawn(page).sum() == 0


def test_the_heat_map_lies_where_the_scores_are(served: Running, folder: Path, rng: np.random.Generator) -> None:
    picture = random_picture(rng, 73, 200)
    status, answer = served.post("/models/a/heatmap?form=values&class=c", jpeg(picture))
    net = vd.load(folder / "a.safetensors")
    from verydeep.evaluation.heatmap import class_map
    from verydeep.inference.forward import Forward
    from verydeep.inference.options import Options
    from verydeep.inference.runtime import Runtime

    pixels = np.asarray(Image.open(io.BytesIO(jpeg(picture))))
    seen, scores = class_map(Forward(net, Options(), Runtime(engine="torch")), pixels, 73, 2)
    assert (status, answer["height"], answer["width"]) == (200, *seen.shape[:2])
    size = float(np.abs(scores - float(net.fc8.bias[2].detach())).max())
    np.testing.assert_allclose(answer["scores"], scores, rtol=0, atol=2 * ENGINE_ERROR * 8 * size)


def test_errors_are_said_as_text(watched: Watched, rng: np.random.Generator) -> None:
    page = watched.page
    upload(page, (EVIL, b"no picture"))
    page.wait_for_selector(".picture .error:not([hidden])")
    assert "not an image" in page.locator(".picture .error").text_content()
    assert page.locator(".picture h2").text_content() == EVIL
    page.select_option("#network", "names")
    upload(page, ("good.jpg", jpeg(random_picture(rng))))
    until(page, "document.querySelectorAll('.bars button').length >= 5")
    assert page.locator(".bars img, h2 img").count() == 0
    assert page.title() == "verydeep"
    page.locator(".remove").last.click()
    assert page.locator(".picture").count() == 1


def test_protocols_and_their_cost(watched: Watched, folder: Path, rng: np.random.Generator) -> None:
    page, file = watched.page, jpeg(random_picture(rng, 100, 200))
    page.wait_for_selector(".choice")
    names = page.locator(".choice > span:first-of-type").all_text_contents()
    assert names[:3] == ["center", "dense", "dense at three scales"]
    page.click("#measure")
    page.wait_for_selector("#measure", state="hidden")
    assert all(text.endswith("s") for text in page.locator(".cost").all_text_contents())
    upload(page, ("p.jpg", file))
    page.wait_for_selector(".about:has-text('by dense@73')")
    page.check("input[value='center@73']")
    page.wait_for_selector(".about:has-text('by center@73')")
    expected = vd.predict(folder / "a.safetensors", file, "center@73").top
    assert page.locator(".bars .name").all_text_contents() == [label for label, _ in expected]


def test_zoom_into_a_large_picture(watched: Watched, rng: np.random.Generator) -> None:
    page = watched.page
    upload(page, ("large.jpg", jpeg(random_picture(rng, 500, 900))))
    page.click(".closely")
    page.wait_for_selector("#deep:not([hidden])")
    page.wait_for_selector("#viewer canvas")
    page.wait_for_selector("#peaks button, #peaks-none:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "deep-class"
    label = page.locator("#deep-class option").first.text_content()
    assert page.locator("#peaks button").count() == int(label.partition("(")[2].rstrip(")"))
    before = page.locator(".peak").first.bounding_box()
    page.locator("#zoom-in").focus()
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('.peak').getBoundingClientRect().width > 1.3 * {before['width']}")
    page.click("#zoom-home")
    check_accessible(page)
    page.locator("#peaks button").first.click()
    page.wait_for_selector(".peak.chosen")
    page.keyboard.press("Escape")
    assert not page.locator("#closely").is_visible()
    assert page.evaluate("fetch('models').then((answer) => answer.status)") == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Any, served: Running, rng: np.random.Generator, scheme: str) -> None:
    url = f"http://127.0.0.1:{served.port}/"
    here = Watched(browser, url, viewport={"width": 360, "height": 740}, has_touch=True, color_scheme=scheme)
    page = here.page
    upload(page, ("a picture with a rather long name that came from a telephone.jpg", jpeg(random_picture(rng))))
    page.wait_for_selector(".bars button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = "[...document.querySelectorAll('button, .button, select')].filter((e) => e.offsetParent)"
    assert page.evaluate(f"Math.min(...{sizes}.map((e) => e.getBoundingClientRect().height))") >= 44
    assert page.evaluate(CONTRAST) >= 4.5
    unnamed = page.locator("button, input, select, img").evaluate_all(UNNAMED)
    assert unnamed == []
    check_accessible(page)
    here.close()


def test_what_each_pixel_is(served: Running, folder: Path, rng: np.random.Generator) -> None:
    file = jpeg(random_picture(rng, 70, 120))
    expected = vd.segment(folder / "pixels.safetensors", file)
    status, answer = served.post("/models/pixels/segment", file)
    assert (status, answer["height"], answer["width"]) == (200, 70, 120)
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    # Rounding decides where two classes' scores are all but equal.
    assert (mask != expected.labels).mean() < 0.01
    assert sum(one["pixels"] for one in answer["areas"]) == 70 * 120
    for one in answer["areas"]:
        label = "xyz".index(one["class"])
        assert one["pixels"] == (mask == label).sum()
        assert one["color"] == "#" + bytes(palette()[label].tolist()).hex()
    for form, kind in (("mask", "image/png"), ("overlay", "image/png"), ("geojson", "application/json")):
        status, content, headers = served.request("POST", f"/models/pixels/segment?form={form}", file)
        assert (status, headers["content-type"]) == (200, kind)
        if form == "mask":
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), mask)
    about = {one["model"]: one["tasks"] for one in json.loads(served.request("GET", "/models")[1])}
    assert about["pixels"] == ["segment"]
    for path, words in (
        ("a/segment", "whole pictures"),
        ("pixels/classify", "names no classes"),
        ("pixels/descriptor", "each pixel"),
        ("pixels/distance", "each pixel"),
    ):
        body = pair(file, file) if path.endswith("distance") else (file, None)
        status, answer = served.post(f"/models/{path}", body[0], **({"content_type": body[1]} if body[1] else {}))
        assert status == 404
        assert words in answer["error"]


def pair(first: bytes, second: bytes) -> tuple[bytes, str]:
    edge = b"a-boundary"
    head = b'--%s\r\nContent-Disposition: form-data; name="x"; filename="p.jpg"\r\n\r\n' % edge
    return b"".join(head + file + b"\r\n" for file in (first, second)) + b"--%s--\r\n" % edge, (
        f"multipart/form-data; boundary={edge.decode()}"
    )


def test_the_mask_lies_over_the_picture(watched: Watched, rng: np.random.Generator) -> None:
    page = watched.page
    page.wait_for_selector(".choice")
    page.select_option("#network", "pixels")
    page.wait_for_selector("#protocols", state="hidden")
    upload(page, ("p.jpg", jpeg(random_picture(rng, 70, 120))))
    page.wait_for_selector(".bars .area")
    until(page, "document.querySelector('.opacity:not([hidden])') !== null")
    page.locator(".opacity input").focus()
    page.keyboard.press("End")
    opaque = drawn(page)
    assert (opaque[..., 3] == 255).all()
    colors = {tuple(int(v) for v in color) for color in np.unique(opaque[..., :3].reshape(-1, 3), axis=0)}
    assert colors <= {tuple(int(v) for v in color) for color in palette()[:3]}
    page.keyboard.press("Home")
    assert drawn(page).sum() == 0
    page.select_option("#network", "a")
    page.wait_for_selector(".bars button")
    assert page.locator(".area").count() == 0


# The least ratio of luminance between text and the background behind it (WCAG 2), over all text shown.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, k) => sum + w * linear(c[k] / 255), 0);
  const behind = (e) => {
    const color = e ? rgb(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return color[3] === 0 ? behind(e.parentElement) : color;
  };
  const ratio = (e) => {
    const [dark, bright] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const says = (e) => e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return Math.min(...[...document.body.querySelectorAll("*")].filter(says).map(ratio));
}"""
UNNAMED = """(all) => all
  .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim() || e.alt))
  .map((e) => e.outerHTML)"""


def test_a_token_is_asked_for(
    browser: Any, start: Callable[..., Running], folder: Path, monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    monkeypatch.setenv("VERYDEEP_TOKEN", "secret")
    weights = str(folder / "b.safetensors")
    service = start(weights, "--memory", "1GiB")
    here = Watched(browser, f"http://127.0.0.1:{service.port}/")
    page = here.page
    page.wait_for_selector("#entry:not([hidden])")
    page.fill("#token", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#protocols:not([hidden])")
    upload(page, ("p.jpg", jpeg(random_picture(rng, 400, 400))))
    page.wait_for_selector(".bars button")
    page.click(".closely")
    page.wait_for_selector("#peaks button, #peaks-none:not([hidden])")
    here.close()


def test_what_is_sent(served: Running) -> None:
    status, text, headers = served.request("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert b"style=" not in text
    assert served.request("GET", "/page/..%2fpages.py")[0] == 404
    assert b"CodePlex" in served.request("GET", "/page/openseadragon.LICENSE.txt")[1]
    own = [path for path in pages.FOLDER.iterdir() if not path.name.startswith("openseadragon")]
    assert sum(path.stat().st_size for path in own) < 200_000
    for path in own:
        assert b"innerHTML" not in path.read_bytes()
        assert b"://" not in path.read_bytes().replace(b"http://www.w3.org/2000/svg", b"")
