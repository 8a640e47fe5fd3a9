"""Readers of pictures with masks, and views of both."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.segmentation.conftest import COLORS, scene
from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets.loader import Augmentation, TrainingLoader
from verydeep.datasets.mask_folders import VOC_CLASSES, open_segmented
from verydeep.images.view import View, place_mask, place_view
from verydeep.segmentation.views import MaskViews


def _save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path)


def test_camvid(camvid: Path) -> None:
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        data = open_segmented(camvid, split)
        assert (len(data), data.classes) == (count, ("red", "green", "blue"))
        for index in range(count):
            mask, picture = data.mask(index), data.image(index)
            known = mask != 255
            assert not known.all()
            assert (picture[known] == COLORS[mask[known]]).all()


def test_voc(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("a", "b", "c"):
        labels = rng.choice(np.array([0, 7, 20, 255], np.uint8), (30, 20))
        _save(tmp_path / f"VOC/JPEGImages/{name}.jpg", rng.integers(0, 256, (30, 20, 3), dtype=np.uint8))
        _save(tmp_path / f"VOC/SegmentationClass/{name}.png", labels, palette=True)
    lists = tmp_path / "VOC/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    data = open_segmented(tmp_path / "VOC", "val")
    assert data.classes == VOC_CLASSES
    assert [sample.id for sample in data.samples] == ["JPEGImages/c.jpg"]
    assert (data.mask(0) == np.asarray(Image.open(tmp_path / "VOC/SegmentationClass/c.png"))).all()
    (lists / "val.txt").write_text("c\nd\n")
    with pytest.raises(UserError, match="missing"):
        open_segmented(tmp_path / "VOC", "val")


@pytest.mark.parametrize("kind", ["gray", "palette", "colors"])
@pytest.mark.parametrize("layout", ["{s}/images {s}/masks", "images/{s} annotations/{s}", "images masks"])
def test_folders_of_pictures_beside_masks(tmp_path: Path, rng: np.random.Generator, kind: str, layout: str) -> None:
    truth = {}
    for split in ("train", "val"):
        pictures, masks = layout.format(s=split).split()
        for number in range(4):
            labels = scene(rng, 24, 30)
            truth[f"{split}{number}"] = labels
            _save(tmp_path / pictures / f"{split}{number}.jpg", rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
            colors = np.where((labels == 255)[..., None], np.uint8(9), COLORS[np.minimum(labels, 2)])
            mask = colors if kind == "colors" else labels
            _save(tmp_path / masks / f"{split}{number}_mask.png", mask, palette=kind == "palette")
    if kind == "colors":
        lines = ["name,r,g,b", *(f"{n},{r},{g},{b}" for n, (r, g, b) in zip("xyz", COLORS, strict=True)), "void,9,9,9"]
        (tmp_path / "classes.csv").write_text("\n".join(lines))
    for split in ("train", "val"):
        data = open_segmented(tmp_path, split)
        assert data.classes == (("x", "y", "z") if kind == "colors" else ("0", "1", "2"))
        for index, sample in enumerate(data.samples):
            assert (data.mask(index) == truth[Path(sample.id).stem]).all()


def test_what_masks_may_not_be(camvid: Path, tmp_path: Path) -> None:
    mask = camvid / "trainannot" / "0.png"
    good = np.asarray(Image.open(mask))
    for wrong, words in (
        (good[:20], "the mask has 56 x 20"),
        (good + 8, "none of the classes'"),
        (np.stack([good] * 3, 2), "in colors"),
    ):
        Image.fromarray(wrong).save(mask)
        with pytest.raises(BadImageError, match=words):
            open_segmented(camvid, "train").mask(0)
    mask.unlink()
    with pytest.raises(UserError, match="no mask of their name"):
        open_segmented(camvid, "train")
    with pytest.raises(UserError, match="no pictures with masks"):
        open_segmented(camvid / "train", "train")
    # 0 and 255 may be a thing and the rest, or what is labeled and what is not.
    for number in range(4):
        _save(tmp_path / f"two/images/{number}.jpg", np.zeros((8, 8, 3), np.uint8))
        _save(tmp_path / f"two/masks/{number}.png", np.array([[0, 255]] * 4, np.uint8).repeat(4, 1).repeat(2, 0))
    with pytest.raises(UserError, match="NAME,VALUE"):
        open_segmented(tmp_path / "two", "train")
    (tmp_path / "two/classes.txt").write_text("nothing,0\nthing,255\n")
    assert set(np.unique(open_segmented(tmp_path / "two", "train").mask(0))) == {0, 1}


def test_a_changed_mask_changes_the_fingerprint(camvid: Path) -> None:
    before = open_segmented(camvid, "train").fingerprint()
    mask = camvid / "trainannot" / "3.png"
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[0, 0] = (pixels[0, 0] + 1) % 3
    Image.fromarray(pixels).save(mask)
    assert open_segmented(camvid, "train").fingerprint() != before


def test_picture_and_mask_are_seen_alike(camvid: Path) -> None:
    """Each pixel of a view that is not near an edge of regions has the color of its label, whatever was drawn."""
    data = open_segmented(camvid, "train")
    views = MaskViews(data, (48, 40), (0.5, 2.0), True)
    loader = TrainingLoader(data, Augmentation(32, (32, 32), sampler=views, canvas=(48, 40), fill=(7, 7, 7)), 6, seed=3)
    flips, beside = set(), 0
    for epoch in range(4):
        (batch,) = loader.epoch(epoch)
        for pixels, target in zip(batch.images.numpy(), batch.targets.numpy(), strict=True):
            labels = target.reshape(48, 40).astype(int)
            empty = (pixels == 7).all(2)
            assert (labels[empty] == 255).all()
            beside += int(empty.any())
            for color in range(3):
                # Interpolated colors lie between those of two regions: only whole ones say which label there must be.
                of_color = (np.abs(pixels.astype(int) - COLORS[color]).max(2) <= 1) & (labels != 255)
                assert (labels[of_color] == color).mean() > 0.97 if of_color.any() else True
            flips.add(labels.tobytes())
    assert len(flips) > 20, "views differ, though two may have the same labels everywhere"
    assert beside


def test_at_their_own_size_views_are_exact(rng: np.random.Generator) -> None:
    picture, mask = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8), rng.integers(0, 5, (30, 44), dtype=np.uint8)
    for flip in (False, True):
        view = View(30, 6, 4, flip, (0.0, 0.0, 0.0))
        pixels, labels = place_view(picture, view, (24, 32), (1, 2, 3)), place_mask(mask, view, (24, 32), 255)
        turn = slice(None, None, -1) if flip else slice(None)
        assert (pixels == picture[6:30, 4:36][:, turn]).all()
        assert (labels == mask[6:30, 4:36][:, turn]).all()
    whole = View(30, 0, 0, True, (0.0, 0.0, 0.0))
    assert (place_mask(mask, whole, (40, 50), 255)[:30, :44] == mask[:, ::-1]).all()
    assert (place_mask(mask, whole, (40, 50), 255)[30:] == 255).all()
    assert (place_view(picture, whole, (40, 50), (1, 2, 3))[30:] == [1, 2, 3]).all()
