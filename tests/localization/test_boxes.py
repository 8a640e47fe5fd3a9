"""Boxes: areas against counted pixels, frames against drawn rectangles, at every scale."""

import numpy as np
import pytest

from verydeep.datasets.dataset import Box
from verydeep.images.rescale import rescale
from verydeep.localization.boxes import (
    Frame,
    areas,
    as_array,
    cells_to_picture,
    clip,
    decode,
    encode,
    iou,
    mirror,
)
from verydeep.localization.dense import boxes_of_windows

SIDE = 40


def _pixels(box):
    """The pixels of a box on a canvas, by first and last pixel, both included."""
    mask = np.zeros((SIDE, SIDE), bool)
    xmin, ymin, xmax, ymax = (int(edge) for edge in box)
    mask[ymin:ymax, xmin:xmax] = True
    return mask


def _random(rng, count):
    low = rng.integers(0, SIDE - 1, (count, 2))
    high = low + 1 + rng.integers(0, SIDE - low)
    return np.concatenate([low, np.minimum(high, SIDE)], axis=1).astype(np.float64)


def test_overlap_is_that_of_counted_pixels(rng):
    a, b = _random(rng, 300), _random(rng, 300)
    found = iou(a, b)
    for one, two, value in zip(a, b, found, strict=True):
        x, y = _pixels(one), _pixels(two)
        assert value == pytest.approx((x & y).sum() / (x | y).sum())
    np.testing.assert_allclose(iou(a[:, None], b[None]).diagonal(), found)


def test_overlap_is_the_devkits_with_inclusive_widths(rng):
    """`eval_localization_flat.m` counts from first to last pixel: w = xmax - xmin + 1."""
    for one, two in zip(_random(rng, 300), _random(rng, 300), strict=True):
        # As published: the last pixel, not the edge behind it.
        bb, gt = one - [0, 0, 1, 1], two - [0, 0, 1, 1]
        bi = [max(bb[0], gt[0]), max(bb[1], gt[1]), min(bb[2], gt[2]), min(bb[3], gt[3])]
        iw, ih = bi[2] - bi[0] + 1, bi[3] - bi[1] + 1
        overlap = 0.0
        if iw > 0 and ih > 0:
            union = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1) + (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1) - iw * ih
            overlap = iw * ih / union
        assert iou(one, two) == pytest.approx(overlap)


def test_boxes_without_area():
    point, box, reversed_box = np.array([5.0, 5, 5, 5]), np.array([0.0, 0, 9, 9]), np.array([9.0, 9, 0, 0])
    assert iou(point, point) == 0
    assert iou(point, box) == 0
    assert areas(reversed_box) == 0
    assert iou(box, box) == 1
    assert as_array([]).shape == (0, 4)


def test_mirrored_boxes_are_those_of_the_mirrored_picture(rng):
    boxes = _random(rng, 50)
    for box, mirrored in zip(boxes, mirror(boxes, SIDE), strict=True):
        np.testing.assert_array_equal(_pixels(box)[:, ::-1], _pixels(mirrored))
    np.testing.assert_array_equal(mirror(mirror(boxes, SIDE), SIDE), boxes)


def test_answers_are_center_and_size_in_shares_of_the_window(rng):
    boxes = rng.uniform(-100, 300, (50, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(0, 200, (50, 2))
    x, y, width, height = encode(boxes, 224).T * 224
    np.testing.assert_allclose(np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1), boxes)
    np.testing.assert_allclose(decode(encode(boxes, 224), 224), boxes)
    np.testing.assert_array_equal(decode(np.array([0.5, 0.5, -0.2, 0.1]), 100), [50, 45, 50, 55])


def test_clip_leaves_nothing_outside():
    found = clip(np.array([[-5.0, -5, 20, 30], [50, 60, 70, 80]]), 25, 15)
    np.testing.assert_array_equal(found, [[0, 0, 15, 25], [15, 25, 15, 25]])


def test_frames_go_there_and_back(rng):
    for _ in range(50):
        height, width, side = (int(n) for n in rng.integers(40, 700, 3))
        frame = Frame(height, width, side, *(int(n) for n in rng.integers(0, 100, 2)))
        boxes = rng.uniform(-50, 800, (7, 4))
        np.testing.assert_allclose(frame.to_picture(frame.to_window(boxes)), boxes)
        # The whole picture is the whole rescaled picture, rounding of the long side included.
        rows, columns = rescale(np.zeros((height, width, 3), np.uint8), side).shape[:2]
        whole = Frame(height, width, side).to_window(np.array([0.0, 0, width, height]))
        np.testing.assert_allclose(whole, [0, 0, columns, rows])


def test_the_central_window_is_in_the_middle():
    assert Frame.central(100, 200, 50, 32) == Frame(100, 200, 50, 9, 34)


def test_cells_are_windows_32_pixels_apart(rng):
    boxes, frame = rng.uniform(0, 64, (3, 4, 2, 4)), Frame(300, 500, 150)
    found = cells_to_picture(boxes, frame)
    for i in range(3):
        for j in range(4):
            for k in range(2):
                x0, y0, x1, y1 = boxes[i, j, k]
                expected = np.array([x0 + 32 * j, y0 + 32 * i, x1 + 32 * j, y1 + 32 * i]) * 2
                np.testing.assert_allclose(found[i, j, k], expected)


def _edges(profile):
    """Where a bright stretch of a dark line begins and ends, to a fraction of a pixel, blurred or not."""
    light = profile / profile.max()
    middle, length = (light * (np.arange(len(light)) + 0.5)).sum() / light.sum(), light.sum()
    return middle - length / 2, middle + length / 2


@pytest.mark.parametrize("side", [224, 256, 288, 352, 384, 416, 512])
@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (61, 97), (1200, 901)])
def test_a_drawn_rectangle_gets_its_corners_back_to_a_pixel(side, shape, rng):
    """A perfect localizer looks at each window's pixels alone; what it says must lead back to the original."""
    height, width = shape
    box = Box(0.3 * width // 1, 0.25 * height // 1, 0.62 * width // 1, 0.7 * height // 1)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[int(box.ymin) : int(box.ymax), int(box.xmin) : int(box.xmax)] = 255
    rescaled = rescale(picture, side)[..., 0].astype(np.float64)
    size, (rows, columns) = 224, ((n - 224) // 32 + 1 for n in rescaled.shape)
    answers, whole = np.zeros((rows, columns, 1, 4), np.float32), np.zeros((rows, columns), bool)
    for i in range(rows):
        for j in range(columns):
            window = rescaled[32 * i : 32 * i + size, 32 * j : 32 * j + size]
            whole[i, j] = not (window[[0, -1]].any() or window[:, [0, -1]].any()) and window.any()
            if whole[i, j]:
                (left, right), (top, bottom) = _edges(window.max(axis=0)), _edges(window.max(axis=1))
                found = np.array([left + right, top + bottom, 2 * (right - left), 2 * (bottom - top)]) / 2 / size
                answers[i, j, 0] = found
    if not whole.any():  # the rectangle is larger than a window at this scale: give its true place in each
        window_boxes = Frame(height, width, side).to_window(as_array([box]))[0]
        for i in range(rows):
            for j in range(columns):
                answers[i, j, 0] = encode(window_boxes - 32 * np.array([j, i, j, i]), size)
        whole[:] = True
    boxes = boxes_of_windows(answers, Frame(height, width, side), size, [0])[whole.ravel(), 0]
    assert np.abs(boxes - as_array([box])).max() < 1
