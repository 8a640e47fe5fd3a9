"""Areas that people drew in CVAT, Label Studio and COCO's editors, as masks to train on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from cvat_sdk import masks as cvat_masks
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools import mask as coco_masks

from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets.brush import brush_mask, brush_runs
from verydeep.datasets.drawn_masks import read_drawn
from verydeep.datasets.mask_folders import open_segmented
from verydeep.datasets.shapes import coco_counts, ellipse, polygon, runs
from verydeep.datasets.storage import open_storage

H, W = 36, 48


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of four pictures, 0.png to 3.png."""
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def blob(rng: np.random.Generator) -> np.ndarray:
    """A mask with several parts and a hole."""
    return np.kron(rng.random((H // 4, W // 4)) < 0.4, np.ones((4, 4))) > 0


def outline(rng: np.random.Generator, corners: int = 7) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in rng.random((corners, 2)) * [W + 10, H + 10] - 5]


def test_a_polygon_has_the_pixels_whose_centers_it_has(rng: np.random.Generator) -> None:
    for corners in (3, 4, 5, 9):
        points = outline(rng, corners)
        y, x = np.mgrid[:H, :W] + 0.5
        centers = np.stack([x.ravel(), y.ravel()], axis=1)
        angles = np.zeros(len(centers))  # how often it goes around each of them
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            a, b = [np.arctan2(v - centers[:, 1], u - centers[:, 0]) for u, v in ((x0, y0), (x1, y1))]
            angles += (b - a + np.pi) % (2 * np.pi) - np.pi
        odd = np.round(angles / (2 * np.pi)).astype(int) % 2 == 1
        np.testing.assert_array_equal(polygon(points, H, W).ravel(), odd)


def test_a_convex_polygon_is_matplotlibs_and_nearly_cocos(rng: np.random.Generator) -> None:
    points = ellipse((W / 2 + rng.random(), H / 2 + rng.random()), (15.3, 9.7), 30, count=23)
    found = polygon(points, H, W)
    y, x = np.mgrid[:H, :W] + 0.5
    inside = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(H, W)
    np.testing.assert_array_equal(found, inside)
    (encoded,) = coco_masks.frPyObjects([np.ravel(points).tolist()], H, W)
    other = coco_masks.decode(encoded).astype(bool)
    assert (found != other).sum() <= np.ptp(points, axis=0).sum()  # the edge, which COCO rounds
    assert abs(int(found.sum()) - np.pi * 15.3 * 9.7) < 20


def test_cocos_runs_are_pycocotools(rng: np.random.Generator) -> None:
    for _ in range(5):
        mask = blob(rng)
        encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(runs(coco_counts(encoded["counts"].decode()), W, H).T, mask)


def test_the_brush_comes_back(rng: np.random.Generator) -> None:
    mask = blob(rng)
    np.testing.assert_array_equal(brush_mask(brush_runs(mask), H, W), mask)
    for wrong, message in ((brush_runs(mask)[:-3], "too early"), (brush_runs(mask[:-1]), "expected")):
        with pytest.raises(ValueError, match=message):
            brush_mask(wrong, H, W)


def test_the_brush_is_label_studios(rng: np.random.Generator) -> None:
    if not (peers := Path("build/annotation-peers").resolve()).is_dir():
        pytest.skip("label-studio-sdk is not here: make test-peers gets it")
    sys.path.append(str(peers))
    try:
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
    finally:
        sys.path.remove(str(peers))
    mask = blob(rng)
    written = brush.mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(brush_mask(written, H, W), mask)


def drawn(folder: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The classes, and the masks by their pictures, of all splits."""
    found = read_drawn(open_storage(folder))
    assert found is not None
    names = {picture: mask for pairs in found.parts.values() for picture, mask in pairs.items()}
    where, read = found.storage.where, found.storage.read
    return found.classes, {picture: found.values.read(read(mask), where(mask)) for picture, mask in names.items()}


def cvat(areas: dict[str, str]) -> str:
    images = "".join(f'<image name="{n}" width="{W}" height="{H}">{a}</image>' for n, a in areas.items())
    return f"<?xml version='1.0'?><annotations><version>1.1</version>{images}</annotations>"


def cvat_mask(label: str, mask: np.ndarray, z: int) -> str:
    """As CVAT's XML keeps a mask that its SDK has encoded."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    *counts, first, above, last, below = (int(n) for n in cvat_masks.encode_mask(mask))
    assert (first, above, last, below) == (left, top, left + width - 1, top + height - 1)
    place = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return f'<mask label="{label}" rle="{", ".join(map(str, counts))}" {place} z_order="{z}"/>'


def test_cvat(pictures: Path, rng: np.random.Generator) -> None:
    under, over, points = blob(rng), blob(rng), outline(rng)
    shown = ";".join(f"{x},{y}" for x, y in points)
    first = (
        cvat_mask("water", over, 2)
        + f'<polygon label="road" points="{shown}" z_order="1"/>'
        + cvat_mask("sky", under, 0)
    )
    round_ = '<ellipse label="void" cx="20" cy="15" rx="8.5" ry="6" z_order="0"/><box label="road"/><tag label="wet"/>'
    (pictures / "annotations.xml").write_text(cvat({"0.png": first, "1.png": round_, "2.png": '<tag label="dry"/>'}))
    classes, masks = drawn(pictures)
    assert classes == ("background", "road", "sky", "water")
    assert sorted(masks) == ["0.png", "1.png"]
    expected = np.where(under, 2, 0)
    expected[polygon(points, H, W)] = 1
    expected[over] = 3
    np.testing.assert_array_equal(masks["0.png"], expected)
    np.testing.assert_array_equal(masks["1.png"] == 255, polygon(ellipse((20, 15), (8.5, 6), 0), H, W))
    assert set(np.unique(masks["1.png"])) == {0, 255}


def test_label_studio(pictures: Path, rng: np.random.Generator) -> None:
    mask, points = blob(rng), outline(rng)
    size = {"original_width": W, "original_height": H}
    brush = {
        "type": "brushlabels",
        "value": {"format": "rle", "rle": brush_runs(mask), "brushlabels": ["leaf"]},
        **size,
    }
    shares = [[x / W * 100, y / H * 100] for x, y in points]
    lines = {"type": "polygonlabels", "value": {"points": shares, "polygonlabels": ["stem"]}, **size}
    tasks = [
        {"data": {"image": "/data/upload/1/1a2b3c4d-3.png"}, "annotations": [{"result": [brush, lines]}]},
        {"data": {"image": "2.png"}, "annotations": [{"was_cancelled": True, "result": [brush]}]},
    ]
    (pictures / "export.json").write_text(json.dumps(tasks))
    classes, masks = drawn(pictures)
    assert (classes, list(masks)) == (("background", "leaf", "stem"), ["3.png"])
    expected = mask.astype(int)
    expected[polygon(points, H, W)] = 2
    np.testing.assert_array_equal(masks["3.png"], expected)
    tasks[0]["annotations"][0]["result"][0]["value"]["rle"] = brush_runs(mask)[:9]
    (pictures / "export.json").write_text(json.dumps(tasks))
    with pytest.raises(BadImageError, match=r"areas on 3\.png.*the area of leaf is damaged"):
        drawn(pictures)


def test_coco(pictures: Path, rng: np.random.Generator) -> None:
    mask, points, crowd = blob(rng), outline(rng), blob(rng)
    packed = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    edges = np.flatnonzero(np.diff(crowd.T.ravel(), prepend=False, append=crowd[-1, -1] ^ True))
    counts = np.diff(edges, prepend=0).tolist()
    areas = [
        {"category_id": 2, "segmentation": {"size": [H, W], "counts": packed["counts"].decode()}},
        {"category_id": 5, "segmentation": [np.ravel(points).tolist()]},
        {"category_id": 5, "iscrowd": 1, "segmentation": {"size": [H, W], "counts": counts}},
    ]
    for number, name in enumerate(("train", "val", "test")):
        (pictures / name).mkdir()
        (pictures / f"{number}.png").rename(pictures / name / "a.png")
        content = {
            "images": [{"id": 4, "file_name": "a.png", "height": H, "width": W}],
            "annotations": [{"image_id": 4, **area} for area in areas],
            "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "ant"}],
        }
        (pictures / f"instances_{name}.json").write_text(json.dumps(content))
    for name in ("train", "val", "test"):
        data = open_segmented(pictures, name)
        assert ([sample.id for sample in data.samples], data.classes) == (
            [f"{name}/a.png"],
            ("background", "ant", "cat"),
        )
        expected = np.where(mask, 2, 0)
        expected[polygon(points, H, W)] = 1
        expected[crowd] = 255
        np.testing.assert_array_equal(data.mask(0), expected)


def test_what_is_wrong_is_said(pictures: Path) -> None:
    file = pictures / "annotations.xml"
    file.write_text(cvat({"0.png": '<polygon label="a" points="1,2;x,3"/>'}))
    with pytest.raises(UserError, match=r"annotations\.xml: its areas are not as the tool writes them .*'x'"):
        open_segmented(pictures, "train")
    file.write_text(cvat({"7.png": '<polygon label="a" points="1,2;3,4;1,9"/>'}))
    with pytest.raises(UserError, match=r"1 pictures with areas are missing \(7\.png\)"):
        open_segmented(pictures, "train")
    file.write_text(cvat({"0.png": '<tag label="a"/>'}))
    with pytest.raises(UserError, match=r"no pictures with masks found.*CVAT"):
        open_segmented(pictures, "train")
    outside = '<mask label="a" rle="0, 4" left="47" top="3" width="2" height="2"/>'
    file.write_text(cvat({"0.png": outside}))
    with pytest.raises(BadImageError, match="beyond the picture"):
        drawn(pictures)
