"""Random views: their distribution, and their pixels against Pillow's."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare, kstest

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.rng import generator
from verydeep.images import jpeg
from verydeep.images.decode import decode, read_header
from verydeep.images.jpeg import decode_top
from verydeep.images.rescale import rescale, rescaled_size
from verydeep.images.view import View, apply_view, decode_view, draw_view

UNLIKELY = 1e-6  # chance of a false alarm


def test_everything_drawn_is_uniform(rng):
    seed = int(rng.integers(2**32))
    # At S = 40 the picture is 40 x 60, so that 9 x 29 places remain.
    views = [draw_view(80, 120, 32, (38, 45), generator(seed, 1, i)) for i in range(20_000)]
    assert chisquare(np.bincount([v.side - 38 for v in views], minlength=8)).pvalue > UNLIKELY
    at_40 = [v for v in views if v.side == 40]
    for places, count in (([v.top for v in at_40], 9), ([v.left for v in at_40], 29)):
        found = np.bincount(places)
        assert len(found) == count  # both ends are reached
        assert chisquare(found).pvalue > UNLIKELY
    assert chisquare(np.bincount([v.flip for v in views])).pvalue > UNLIKELY
    normals = np.array([v.normals for v in views])
    assert all(kstest(column, "norm").pvalue > UNLIKELY for column in normals.T)
    together = np.column_stack([normals, [(v.side, v.flip) for v in views]])
    assert np.abs(np.corrcoef(together.T) - np.eye(5)).max() < 0.05


def test_fixed_scale_without_flip_and_one_place_only():
    views = [draw_view(50, 50, 32, (32, 32), generator(0, i), flip=False) for i in range(40)]
    assert {(v.side, v.top, v.left, v.flip) for v in views} == {(32, 0, 0, False)}
    assert len({v.normals for v in views}) == 40


def test_flip_does_not_change_the_rest():
    for i in range(20):
        with_flip, without = (draw_view(90, 70, 32, (32, 64), generator(3, i), flip=flip) for flip in (True, False))
        assert replace(with_flip, flip=False) == without


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 60), st.integers(0, 60), st.integers(0, 2**32))
def test_views_fit(height, width, crop, more, seed):
    view = draw_view(height, width, crop, (crop, crop + more), generator(seed))
    rows, columns = rescaled_size(height, width, view.side)
    assert 0 <= view.top <= rows - crop
    assert 0 <= view.left <= columns - crop


@pytest.mark.parametrize("scales", [(31, 64), (64, 40)])
def test_scales_that_make_no_sense(scales):
    with pytest.raises(UserError, match="expected crop <= Smin <= Smax"):
        draw_view(90, 90, 32, scales, generator(0))


def reference(image, view, crop):
    """The same view the usual way: Pillow rescales the whole image, then it is cut and flipped."""
    rows, columns = rescaled_size(*image.shape[:2], view.side)
    whole = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)
    pixels = np.asarray(whole.crop((view.left, view.top, view.left + crop, view.top + crop))).astype(int)
    return pixels[:, ::-1] if view.flip else pixels


def test_pixels_are_near_pillow(rng, draw):
    for i in range(30):
        image = draw(rng, *rng.integers(60, 400, 2))
        view = draw_view(*image.shape[:2], 48, (48, 200), generator(int(rng.integers(2**32)), i))
        pixels = apply_view(image, view, 48)
        assert pixels.shape == (48, 48, 3)
        assert pixels.flags.c_contiguous
        assert np.abs(pixels - reference(image, view, 48)).mean() < 1


@settings(max_examples=80, deadline=None)
@given(
    st.integers(20, 200),
    st.integers(20, 200),
    st.sampled_from([("JPEG", {}), ("JPEG", {"subsampling": 0}), ("JPEG", {"progressive": True}), ("PNG", {})]),
    st.sampled_from([1, 1, 3, 6]),
    st.integers(0, 2**32 - 1),
)
def test_partial_decoding_gives_the_same_pixels(encode, draw, height, width, kind, turn, seed):
    exif = Image.Exif()
    exif[274] = turn
    options = {"exif": exif} if turn > 1 else {}
    data = encode(draw(np.random.default_rng(seed), height, width), kind[0], **kind[1], **options)
    header, image = read_header(data, "x"), decode(data, "x")
    view = draw_view(header.height, header.width, 16, (max(16, min(height, width) // 2 + 1), 250), generator(seed))
    np.testing.assert_array_equal(decode_view(data, header, view, 16), apply_view(image, view, 16))


@pytest.mark.parametrize("factor", [2, 2.7, 4.1, 9, 20])
@pytest.mark.parametrize("turn", [1, 8])
def test_large_jpegs_are_reduced_while_decoded(factor, turn, rng, draw, encode):
    crop, side = 32, 40
    shape = (int(side * factor * 1.4), int(side * factor) + rng.integers(4))
    image = np.asarray(Image.fromarray(draw(rng, 40, 56)).resize(shape, Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[274] = turn
    data = encode(image, "JPEG", quality=95, exif=exif)
    header, upright = read_header(data, "x"), decode(data, "x")
    rows, columns = rescaled_size(header.height, header.width, side)
    for top, left in ((0, 0), (rows - crop, columns - crop)):
        view = View(side, top, left, bool(rng.integers(2)), (0, 0, 0))
        pixels = decode_view(data, header, view, crop)
        # At a step of exactly 2 libjpeg averages 2 x 2 pixels where Pillow's triangle covers 4 x 4: that much sharper.
        assert np.abs(pixels - reference(upright, view, crop)).mean() < 3


@pytest.mark.parametrize(("side", "expected"), [(101, 1), (100, 2), (51, 2), (50, 4), (25, 8), (13, 8), (12, 1)])
def test_reduction_is_the_greatest_that_leaves_enough(side, expected, rng, draw, encode, monkeypatch):
    data = encode(draw(rng, 200, 240), "JPEG")
    reductions = []

    def spy(data, height, width, rows, reduction):
        reductions.append(reduction)
        return decode_top(data, height, width, rows, reduction)

    monkeypatch.setattr(jpeg, "decode_top", spy)
    decode_view(data, read_header(data, "x"), View(side, 0, 0, False, (0, 0, 0)), 12)
    assert reductions == [expected]


def test_no_more_is_decoded_than_needed(rng, encode):
    """Damage below the crop is not looked at: proof that the rows there are left out."""
    data = encode(rng.integers(0, 256, (400, 100, 3), np.uint8), "JPEG")
    header = read_header(data, "x")
    place = len(data) * 3 // 4
    damaged = data[:place] + b"\xff\xd9" + data[place:]
    view = View(100, 0, 0, False, (0, 0, 0))
    np.testing.assert_array_equal(decode_view(damaged, header, view, 64), decode_view(data, header, view, 64))
    for bad, low in ((damaged, replace(view, top=300)), (data[:place], view)):
        with pytest.raises(BadImageError, match="x: damaged JPEG file"):
            decode_view(bad, header, low, 64)


def test_real_photographs(shared_data):
    import tarfile

    differences = []
    with tarfile.open(shared_data / "imagenet-samples.tar") as archive:
        for i, member in enumerate([member for member in archive if member.isfile()][::10]):
            data = archive.extractfile(member).read()
            header = read_header(data, member.name)
            view = draw_view(header.height, header.width, 224, (256, 512), generator(0, i))
            if header.orientation == 1:
                image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                differences.append(np.abs(decode_view(data, header, view, 224) - reference(image, view, 224)).mean())
    assert len(differences) >= 15
    assert np.mean(differences) < 1


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos", "box"])
def test_other_interpolations_are_those_of_the_whole_image(rng: np.random.Generator, interpolation: str) -> None:
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8), (0, 0), 2)
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    view = View(side=40, top=3, left=5, flip=False, normals=(0.0, 0.0, 0.0))
    found = decode_view(data, read_header(data, "x.jpg"), view, 32, interpolation)
    whole = rescale(decode(data, "x.jpg"), 40, interpolation)[3:35, 5:37]
    assert np.abs(found.astype(int) - whole).max() <= 1
    bilinear = decode_view(data, read_header(data, "x.jpg"), view, 32)
    assert np.abs(found.astype(int) - bilinear).max() > 1
