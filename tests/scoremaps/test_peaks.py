"""Peaks: one place for each thing."""

import csv
import json

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.scoremaps.georeference import Georeference
from verydeep.scoremaps.peaks import find_peaks, write_peaks
from verydeep.scoremaps.score_map import Level, ScoreMap

PLACE = Georeference((0.5, 0.0, 100.0, 0.0, -0.5, 900.0), {})


def made(*arrays, scales=None, place=None):
    scales = scales or [1.0] * len(arrays)
    levels = tuple(
        Level(scale, np.asarray(values, np.float32), (1 / scale, 1 / scale), 32, 64)
        for scale, values in zip(scales, arrays, strict=True)
    )
    return ScoreMap(levels, ("cat", "dog")[: len(arrays[0])], "posterior", "a.tif", 500, 400, place)


def test_local_maxima_above_the_threshold():
    values = np.full((2, 150, 9), 0.1)
    values[0, 3, 4] = 0.9
    values[0, 3, 5] = 0.8  # beside a higher one
    values[0, 63, 2], values[0, 64, 3] = 0.7, 0.75  # on both sides of where rows are read
    values[1, 3, 4] = 0.6  # another class
    values[1, 100, 8] = 0.5
    values[1, 101, 0] = np.nan
    found = find_peaks(made(values), 0.55)
    assert [(p.label, round(p.value, 2), p.y, p.x) for p in found] == [
        ("cat", 0.9, 128.0, 160.0),
        ("cat", 0.75, 64 * 32 + 32.0, 128.0),
        ("dog", 0.6, 128.0, 160.0),
    ]


def test_scales_share_their_peaks():
    fine, coarse = np.full((1, 9, 9), 0.1), np.full((1, 4, 4), 0.1)
    fine[0, 2, 2] = 0.7  # center at 96, 96
    coarse[0, 1, 1] = 0.9  # center at 128, 128, a window of 128
    coarse[0, 3, 3] = 0.8
    found = find_peaks(made(fine, coarse, scales=[1.0, 0.5]), 0.5)
    assert [(p.scale, p.x, p.width) for p in found] == [(0.5, 128, 128), (0.5, 256, 128), (1.0, 96, 64)]
    fine[0, 2, 2], fine[0, 3, 3] = 0.1, 0.7  # the higher one's center
    assert [p.scale for p in find_peaks(made(fine, coarse, scales=[1.0, 0.5]), 0.5)] == [0.5, 0.5]


def test_a_plateau_is_one_peak_where_it_is_small():
    values = np.full((1, 9, 9), 0.1)
    values[0, 2, 2:4] = 0.9
    found = find_peaks(made(values))
    assert len(found) == 2  # a stride of half a window: the other lies outside the middle half


def test_files(tmp_path):
    values = np.full((2, 5, 5), 0.1)
    values[1, 2, 3] = 0.987654321
    found = made(values, place=PLACE)
    peaks = find_peaks(found)
    write_peaks(peaks, tmp_path / "p.csv", found)
    (row,) = csv.DictReader((tmp_path / "p.csv").open())
    assert row == {
        "class": "dog", "posterior": "0.987654", "scale": "1.0", "x": "128.0", "y": "96.0", "width": "64.0",
        "height": "64.0", "map_x": "164.0", "map_y": "852.0",
    }  # fmt: skip
    write_peaks(peaks, tmp_path / "p.geojson", found)
    (feature,) = json.loads((tmp_path / "p.geojson").read_text())["features"]
    assert feature["properties"]["class"] == "dog"
    ring = np.array(feature["geometry"]["coordinates"][0])
    assert ring.min(0).tolist() == [96, 64]
    assert ring.max(0).tolist() == [160, 128]
    assert ring[0].tolist() == ring[-1].tolist()
    write_peaks([], tmp_path / "none.csv", found)
    assert (tmp_path / "none.csv").read_text().startswith("class,posterior,scale,x,y")
    with pytest.raises(UserError, match=r"must end in .csv or .geojson"):
        write_peaks(peaks, tmp_path / "p.txt", found)
