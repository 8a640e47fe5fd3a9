"""CVAT's own driver runs the function, and what it would upload is read back from CVAT's own XML."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from tests.serving.conftest import CLASSES, network, random_picture
from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.nets.config import SegmentationConfig

pytest.importorskip("cvat_sdk", reason="cvat-sdk is not installed (make test installs it)")


@pytest.fixture
def annotated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `annotate_task` on pictures; CVAT's server is played by the two calls that the driver makes of it."""
    from cvat_sdk.auto_annotation import annotate_task, driver
    from cvat_sdk.models import Label

    def run(function: Any, pictures: dict[str, Image.Image], kind: str, **options: Any) -> dict[int, list[Any]]:
        labels = [
            Label(name=name, id=100 + i, type=kind, attributes=[], sublabels=[]) for i, name in enumerate(CLASSES)
        ]
        samples = [
            SimpleNamespace(frame_name=name, frame_index=i, media=SimpleNamespace(load_image=lambda p=picture: p))
            for i, (name, picture) in enumerate(pictures.items())
        ]
        monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=samples))
        uploaded: list[Any] = []
        api = SimpleNamespace(update_annotations=lambda _, labeled_data_request: uploaded.append(labeled_data_request))
        client: Any = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
        annotate_task(client, 1, function, clear_existing=True, **options)
        (data,) = uploaded
        found: dict[int, list[Any]] = {i: [] for i in range(len(pictures))}
        for one in [*data.tags, *data.shapes]:
            found[one.frame].append(one)
        return found

    return run


@pytest.fixture
def pictures(rng: np.random.Generator) -> dict[str, Image.Image]:
    sides = rng.integers(64, 110, (16, 2))
    return {f"{i:02d}.png": Image.fromarray(random_picture(rng, *map(int, side))) for i, side in enumerate(sides)}


def encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_tags_are_what_predict_says(annotated: Any, pictures: dict[str, Image.Image], folder: Path) -> None:
    from verydeep.serving import cvat

    net = vd.load(folder / "a.safetensors")
    function = cvat.create(str(folder / "a.safetensors"))
    found = annotated(function, pictures, "tag")
    named = [vd.predict(net, encoded(picture), engine="torch").top[0] for picture in pictures.values()]
    assert [[CLASSES[tag.label_id - 100] for tag in tags] for tags in found.values()] == [[name] for name, _ in named]
    least = float(np.median([posterior for _, posterior in named]))
    sure = annotated(function, pictures, "tag", conf_threshold=least)
    for tags, (_, posterior) in zip(sure.values(), named, strict=True):
        if abs(posterior - least) > 1e-3:
            assert bool(tags) == (posterior > least)


def test_several_classes_where_the_network_gives_several(
    annotated: Any, pictures: dict[str, Image.Image], folder: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    from verydeep.serving import cvat

    net = vd.load(folder / "a.safetensors")
    net.provenance = replace(net.provenance, multi_label=True)
    vd.save(net, tmp_path / "several.safetensors")
    found = annotated(cvat.create(str(tmp_path / "several.safetensors")), pictures, "tag")
    for tags, picture in zip(found.values(), pictures.values(), strict=True):
        top = vd.predict(net, encoded(picture), top=8, engine="torch").top
        names = {CLASSES[tag.label_id - 100] for tag in tags}
        assert {name for name, posterior in top if posterior > 0.501} <= names
        assert names <= {name for name, posterior in top if posterior > 0.499}


def test_masks_are_what_segment_says(annotated: Any, pictures: dict[str, Image.Image], tmp_path: Path) -> None:
    from verydeep.serving import cvat

    about = SegmentationConfig("8s", "map", (1.0, 1.0))
    net = vd.create("B", CLASSES, width=1 / 16, image_size=64, fc_width=24, segmentation=about, initialization="he")
    vd.save(net.eval(), tmp_path / "pixels.safetensors")
    found = annotated(cvat.create(str(tmp_path / "pixels.safetensors")), pictures, "mask", allow_unmatched_labels=True)
    for shapes, picture in zip(found.values(), pictures.values(), strict=True):
        drawn = np.full((picture.height, picture.width), 255)
        for shape in shapes:  # CVAT's masks: lengths of runs that are not and are of it, and the box around it
            *runs, left, top, right, bottom = map(int, shape.points)
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(bottom - top + 1, right - left + 1)
            drawn[top : bottom + 1, left : right + 1][inside] = shape.label_id - 100
        wanted = vd.segment(net, encoded(picture), engine="torch").labels
        assert (drawn != wanted).mean() < 0.01  # rounding decides where scores are all but equal
    with pytest.raises(UserError, match="segment"):
        cvat.create(str(tmp_path / "pixels.safetensors"), protocol="dense@64")


def test_boxes_come_back_from_cvats_xml(
    annotated: Any, pictures: dict[str, Image.Image], folder: Path, tmp_path: Path
) -> None:
    from verydeep.serving import cvat

    boxes = network(5, regression="pcr")
    with torch.no_grad():  # boxes in the middle, a little different from picture to picture
        boxes.fc8.weight *= 0.02
        boxes.fc8.bias[:] = torch.tensor([0.5, 0.5, 0.5, 0.4]).repeat(len(boxes.fc8.bias) // 4)
    vd.save(boxes, tmp_path / "boxes.safetensors")
    net = vd.load(folder / "a.safetensors")
    found = annotated(cvat.create(str(folder / "a.safetensors"), str(tmp_path / "boxes.safetensors")), pictures, "any")
    data, rows = tmp_path / "data", []
    data.mkdir()
    for i, ((name, picture), (shape,)) in enumerate(zip(pictures.items(), found.values(), strict=True)):
        box = vd.localize(net, boxes, encoded(picture), engine="torch").top[0]
        assert CLASSES[shape.label_id - 100] == box.name
        np.testing.assert_allclose(shape.points, box.box, atol=0.05)
        picture.save(data / name)
        edges = " ".join(f'{k}="{v!r}"' for k, v in zip(("xtl", "ytl", "xbr", "ybr"), shape.points, strict=True))
        # An annotator looks at each and gives it its class; the boxes are as they came.
        row = f'<box label="{CLASSES[i % 2]}" source="auto" occluded="0" {edges} z_order="0"></box>'
        size = f'width="{picture.width}" height="{picture.height}"'
        rows.append(f'<image id="{i}" name="{name}" {size}>{row}</image>')
    (data / "annotations.xml").write_text(f"<annotations><version>1.1</version>{''.join(rows)}</annotations>")
    parts = [open_dataset(data, split, boxes=True) for split in ("train", "val", "test")]
    read = {sample.id: sample.boxes for part in parts for sample in part.samples}
    assert set(read) == set(pictures)
    for name, shapes in zip(pictures, found.values(), strict=True):
        (box,) = read[name]
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(tuple(shapes[0].points))
