"""Label Studio: pre-annotations are what `predict` and `localize` say, and come back as labels; nothing is fetched."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from tests.serving.conftest import CLASSES, Running, jpeg, network, random_picture
from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.brush import brush_runs
from verydeep.inference.protocol import Protocol
from verydeep.localization.localize import Found, Localized
from verydeep.nets.config import SegmentationConfig
from verydeep.serving.guard import _brings
from verydeep.serving.label_studio import annotation, picture_in, project_of
from verydeep.serving.picture_folder import PictureFolder
from verydeep.serving.refusal import RefusedError

TOKEN = "open sesame"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"label-studio:{TOKEN}".encode()).decode()}
CHOICES = "".join(f'<Choice value="{name}"/>' for name in (*CLASSES[:-1], "none of ours"))
LABELS = "".join(f'<Label value="{name}"/>' for name in CLASSES)
IMAGE = '<Image name="img" value="$image"/>'
BOTH = f"""<View><Header value="What is it?"/>{IMAGE}<Choices name="class" toName="img">{CHOICES}
<Choice value="the last" alias="h"/></Choices>
<RectangleLabels name="box" toName="img">{LABELS}</RectangleLabels></View>"""
PEERS = Path(__file__).resolve().parents[2] / "build" / "annotation-peers"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label Studio's folder of uploads with 12 pictures, beside a file that is none of its business."""
    folder = tmp_path_factory.mktemp("label-studio") / "media"
    (folder / "upload" / "1").mkdir(parents=True)
    rng = np.random.default_rng(3)
    for number in range(12):
        picture = random_picture(rng, 70 + number, 90)
        (folder / "upload" / "1" / f"0a1b2c3d-photo {number}.jpg").write_bytes(jpeg(picture))
    (folder.parent / "secret.jpg").write_bytes(jpeg(picture))
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    return folder


@pytest.fixture(scope="module")
def backend(start: Callable[..., Running], folder: Path, pictures: Path) -> Running:
    drawing = network(5, regression="pcr")
    with torch.no_grad():  # boxes in the middle, a little different from picture to picture
        drawing.fc8.weight *= 0.02
        drawing.fc8.bias[:] = torch.tensor([0.5, 0.5, 0.5, 0.4]).repeat(len(drawing.fc8.bias) // 4)
    vd.save(drawing, folder / "drawing.safetensors")
    about = SegmentationConfig("8s", "map", (1.0, 1.0))
    shape = {"width": 1 / 16, "image_size": 64, "fc_width": 24, "initialization": "he"}
    vd.save(vd.create("B", CLASSES, segmentation=about, seed=2, **shape).eval(), folder / "pixels.safetensors")
    weights = [str(folder / f"{name}.safetensors") for name in ("a", "b", "pixels")]
    boxes = ["--localizer", str(folder / "drawing.safetensors")]
    return start(
        *weights, *boxes, "--token", TOKEN, "--memory", "256MiB", "--label-studio", "--pictures", str(pictures)
    )


def uploads(pictures: Path) -> list[Path]:
    return sorted((pictures / "upload" / "1").iterdir())


def ask(backend: Running, path: str, request: Any, name: str = "a") -> tuple[int, Any]:
    return backend.post(f"/label-studio/{name}/{path}", json.dumps(request), **BASIC)


def refused(backend: Running, path: str, request: Any, name: str = "a") -> str:
    status, answer = ask(backend, path, request, name)
    assert status == 422, answer
    assert list(answer) == ["error"]
    return str(answer["error"])


def tasks_of(pictures: Path) -> list[dict[str, Any]]:
    """Each way that a task can have its picture in turn."""
    tasks = []
    for number, path in enumerate(uploads(pictures)):
        ways = (
            f"/data/upload/1/{path.name.replace(' ', '%20')}",
            f"/data/local-files/?d=upload/1/{path.name.replace(' ', '%20')}",
            "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode(),
            f"upload/1/{path.name}",
        )
        tasks.append({"id": number, "data": {"image": ways[number % 4], "text": "other"}})
    return tasks


@pytest.fixture(scope="module")
def answer(backend: Running, pictures: Path) -> dict[str, Any]:
    request = {
        "tasks": tasks_of(pictures),
        "label_config": BOTH,
        "project": "1.1700000000",
        "params": {"context": None},
    }
    status, answer = ask(backend, "predict", request)
    assert status == 200, answer
    return answer


def unpacked(runs: list[int]) -> Any:
    """Bytes of runs, read as Label Studio's own page does (rle-pack's `decode`)."""
    bits = "".join(f"{byte:08b}" for byte in runs)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    size, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < size:
        same = read(1)
        count = read(lengths[read(2)]) + 1
        values += [read(word)] * count if same else [read(word) for _ in range(count)]
    return np.array(values)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 61), (200, 170)])
def test_a_brushs_runs_are_read_as_they_are_there(shape: tuple[int, int], rng: np.random.Generator) -> None:
    for mask in (rng.random(shape) < 0.3, np.zeros(shape, bool), np.ones(shape, bool)):
        values = unpacked(brush_runs(mask)).reshape(*shape, 4)
        np.testing.assert_array_equal(values, np.repeat(mask[:, :, None] * 255, 4, 2))


def test_masks_are_what_segment_says(backend: Running, folder: Path, pictures: Path) -> None:
    config = f'<View>{IMAGE}<BrushLabels name="mask" toName="img">{LABELS}</BrushLabels></View>'
    tasks = tasks_of(pictures)[:4]
    status, answer = ask(backend, "predict", {"tasks": tasks, "label_config": config}, "pixels")
    assert status == 200, answer
    for result, path in zip(answer["results"], uploads(pictures), strict=False):
        wanted = vd.segment(folder / "pixels.safetensors", path).labels
        drawn = np.full(wanted.shape, 255)
        for region in result["result"]:
            assert (region["type"], region["to_name"], region["value"]["format"]) == ("brushlabels", "img", "rle")
            size = region["original_height"], region["original_width"]
            mask = unpacked(region["value"]["rle"]).reshape(*size, 4)[:, :, 3]
            (label,) = region["value"]["brushlabels"]
            drawn[mask == 255] = CLASSES.index(label)
        assert (drawn != wanted).mean() < 0.01  # rounding decides where scores are all but equal
    assert "network for pixels" in refused(backend, "setup", {"schema": config})
    assert "names no classes" in refused(backend, "setup", {"schema": BOTH}, "pixels")


def test_pre_annotations_are_what_predict_and_localize_say(
    answer: dict[str, Any], folder: Path, pictures: Path
) -> None:
    assert len(answer["results"]) == 12
    net, boxes = vd.load(folder / "a.safetensors"), vd.load(folder / "drawing.safetensors")
    for one, path in zip(answer["results"], uploads(pictures), strict=True):
        choice, box = one["result"]
        named, found = vd.predict(net, path, engine="torch"), vd.localize(net, boxes, path, engine="torch").top[0]
        assert choice["value"] == {"choices": [named.top[0][0]]}
        assert choice["score"] == pytest.approx(named.top[0][1], abs=1e-3)
        assert (choice["from_name"], choice["to_name"], choice["type"]) == ("class", "img", "choices")
        width, height = Image.open(path).size
        assert (box["original_width"], box["original_height"]) == (width, height)
        value = box["value"]
        edges = [value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]]
        scale = np.array([width, height, width, height]) / 100
        np.testing.assert_allclose(edges * scale, found.box, atol=0.05)
        assert value["rectanglelabels"] == [found.name]
        assert one["score"] == pytest.approx(min(choice["score"], box["score"]))
        assert one["model_version"] == answer["model_version"]


def test_what_is_exported_is_read_as_it_was_predicted(tmp_path: Path, rng: np.random.Generator) -> None:
    net = SimpleNamespace(classes=CLASSES, multi_label=False)
    model: Any = SimpleNamespace(net=net, hash="0" * 64, classify=1, localize=1)
    project = project_of(BOTH, model)
    export, truth = [], {}
    for number in range(24):
        height, width = (int(side) for side in rng.integers(20, 90, 2))
        (left, right), (top, bottom) = (np.sort(rng.uniform(0, side, 2)) for side in (width, height))
        label = CLASSES[number % 2]
        found = Found(label, 0.5, (left, top, right, bottom), 1.0)
        located = Localized("", height, width, Protocol.parse("dense@64"), (found,))
        regions = annotation(project, model, None, located, None)["result"]
        path = f"/data/upload/1/0a1b2c3d-{number}.png"
        export.append({"id": number, "data": {"image": path}, "annotations": [{"result": regions}]})
        Image.new("RGB", (width, height)).save(tmp_path / f"{number}.png")
        truth[f"{number}.png"] = label, found.box
    (tmp_path / "export.json").write_text(json.dumps(export), encoding="utf-8")
    parts = [open_dataset(tmp_path, split, boxes=True) for split in ("train", "val", "test")]
    read = {sample.id: (part.classes[sample.label], sample.boxes) for part in parts for sample in part.samples}
    assert set(read) == set(truth)
    for name, (label, (box,)) in read.items():
        assert (label, pytest.approx((box.xmin, box.ymin, box.xmax, box.ymax), abs=1e-9)) == truth[name]


def test_setup_health_and_versions(backend: Running, answer: dict[str, Any]) -> None:
    version = {"model_version": answer["model_version"]}
    for name in ("schema", "label_config"):
        assert ask(backend, "setup", {"project": "1.1", name: BOTH, "hostname": "", "access_token": ""}) == (
            200,
            version,
        )
    status, text, _ = backend.request("GET", "/label-studio/a/health", headers=BASIC)
    assert (status, json.loads(text)["status"]) == (200, "UP")
    assert ask(backend, "versions", {"project": "1.1"}) == (200, {"versions": [answer["model_version"]]})
    assert ask(backend, "webhook", {"action": "ANNOTATION_CREATED", "task": {}}) == (200, version)
    for path, request in (("webhook", {"action": "START_TRAINING"}), ("train", {"annotations": []})):
        assert "verydeep train --data" in refused(backend, path, request)
    assert backend.request("GET", "/label-studio/a/health")[0] == 401
    assert ask(backend, "setup", {"schema": BOTH}, name="zebra")[0] == 404


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://127.0.0.1:1/cat.jpg", "never done"),
        ("//elsewhere/cat.jpg", "never done"),
        ("s3://bucket/cat.jpg", "never done"),
        ("file:///etc/passwd", "never done"),
        ("../secret.jpg", "outside"),
        ("/data/upload/../../secret.jpg", "outside"),
        ("/data/local-files/?d=%2e%2e/secret.jpg", "outside"),
        ("link.jpg", "outside"),
        ("/etc/passwd", "is no file"),
        ("circle.jpg", "is no file"),
        ("upload", "is no file"),
        ("a\0b", "is no file"),
        ("x" * 5000, "is no file"),
        ("data:image/png;base64,!!", "no base64"),
        ("data:image/png;base64,aaaa", "picture"),
        ("", "no picture"),
        (None, "no picture"),
    ],
)
def test_pictures_come_from_the_task_or_the_folder_alone(backend: Running, place: str | None, said: str) -> None:
    error = refused(backend, "predict", {"tasks": [{"id": 7, "data": {"image": place}}], "label_config": BOTH})
    assert said in error
    assert "\n" not in error
    assert len(error) < 400


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "expected"),
        ("<View>", "no valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "declarations"),
        (f"<View>{IMAGE}</View>", "neither Choices, RectangleLabels nor"),
        (f'<View>{IMAGE}<Choices name="c" toName="text">{CHOICES}</Choices></View>', "neither"),
        (f'<View>{IMAGE}<Choices name="c" toName="img"><Choice value="zebra"/></Choices></View>', "none of its labels"),
        (
            f'<View>{IMAGE}<Choices name="c" toName="img">{CHOICES}</Choices>'
            f'<Choices name="d" toName="img">{CHOICES}</Choices></View>',
            "several questions",
        ),
        (f'<View><Image name="i"/><Choices name="c" toName="i">{CHOICES}</Choices></View>', "value="),
    ],
)
def test_configurations_that_a_network_cannot_answer(backend: Running, config: str | None, said: str) -> None:
    assert said in refused(backend, "setup", {"schema": config})
    assert said in refused(backend, "predict", {"tasks": [], "label_config": config})


def test_boxes_need_a_localizer_and_files_a_folder(
    backend: Running, start: Callable[..., Running], folder: Path
) -> None:
    assert "--localizer" in refused(backend, "setup", {"schema": BOTH}, name="b")
    exchange: Any = None
    with pytest.raises(RefusedError, match="--pictures"):
        picture_in({"data": {"image": "/data/upload/1/cat.jpg"}}, "image", None, exchange)
    with pytest.raises(UserError, match="a folder"):
        PictureFolder.open(str(folder / "absent"))


@pytest.mark.parametrize("request_", [[], {}, {"tasks": {}}, {"tasks": [1]}, {"tasks": [{"data": 1}]}])
def test_requests_that_are_none(backend: Running, request_: Any) -> None:
    refused(backend, "predict", request_)


def test_a_token_is_the_password_of_any_user() -> None:
    assert _brings(b"Bearer s", "s")
    for given in (b"", b"Bearer", b"Bearer x", b"Basic s", b"Basic " + base64.b64encode(b"s"), b"Basic \xff", b"s"):
        assert not _brings(given, "s"), given


@pytest.mark.large
def test_label_studios_own_classes_take_the_answers(backend: Running, answer: dict[str, Any], pictures: Path) -> None:
    if not PEERS.is_dir():
        pytest.skip(f"{PEERS} is not there; make test-peers makes it")
    sys.path.append(str(PEERS))
    from label_studio_ml.api import init_app
    from label_studio_ml.model import LabelStudioMLBase
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import PredictionValue

    interface = LabelInterface(BOTH)
    for one in answer["results"]:
        assert interface.validate_prediction(one, return_errors=True) == []
        PredictionValue(**one)

    class Theirs(LabelStudioMLBase):
        def predict(self, tasks: Any, **_: Any) -> Any:
            return answer["results"]

    theirs = init_app(Theirs, model_dir=str(pictures)).test_client()
    for path, request in (("setup", {"project": "1.1", "schema": BOTH}),):
        status, own = ask(backend, path, request)
        said = theirs.post(f"/{path}", json=request)
        assert (status, set(own)) == (said.status_code, set(said.json))
    request = {"tasks": tasks_of(pictures), "label_config": BOTH, "project": "1.1", "params": {}}
    said = theirs.post("/predict", json=request)
    assert said.status_code == 200, said.data
    assert set(said.json) == set(answer)
    assert said.json["results"] == answer["results"]
    assert theirs.get("/health").json["status"] == "UP"
