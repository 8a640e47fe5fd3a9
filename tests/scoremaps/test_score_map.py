"""Whole maps of images, in memory and in files: exact, continued after any stop, refused where they make no sense."""

import errno
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import UserError, WorkError
from verydeep.images.rescale import rescale
from verydeep.scoremaps import score_map as module
from verydeep.scoremaps.bands import Rectangle
from verydeep.scoremaps.regions import subtract

zarr = pytest.importorskip("zarr", reason="zarr is not installed (it needs Python 3.11)")


@settings(max_examples=15)
@given(
    st.sampled_from("ABCDE"),
    st.booleans(),
    st.integers(64, 150),
    st.integers(64, 150),
    st.integers(0, 40),
    st.sampled_from((1.0, 0.8, 1.7)),
    st.integers(0, 2**32 - 1),
)
def test_maps_within_any_limit_are_the_whole_images(tools, name, round_up, height, width, spare, scale, seed):
    net = tools.make(name, image_size=32, round_up=round_up, seed=seed % 97)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    dense = vd.densify(net)
    job = module.Job(image, dense, module.Wanted((scale,), softmax=False), device="cpu")
    plans = _plans(job, spare)
    found = job.run(plans, None)
    side = int(min(height, width) * scale + 0.5)
    pixels = image if scale == 1 else rescale(image, side, net.preprocessing.interpolation)
    assert tools.off(found.levels[0].values, tools.whole(net, pixels)) < 1e-5


def _plans(job, spare):
    """Plan with the least memory that works and `spare` fortieths of what more would be of use."""
    from verydeep.scoremaps.plan import make_plan, map_size

    source = job.sources[0]
    part = Rectangle(0, 0, *map_size(job.dense.layers, source.height, source.width))
    most = make_plan(job.dense, source.height, source.width, [part], None).working_bytes
    with pytest.raises(module.MemoryTooSmallError) as caught:
        make_plan(job.dense, source.height, source.width, [part], 1)
    limit = caught.value.least + (most - caught.value.least) * spare // 40
    plan = make_plan(job.dense, source.height, source.width, [part], limit)
    assert plan.working_bytes <= limit
    return [plan]


def test_a_file_holds_what_memory_holds(net, image, tmp_path):
    options = {"scales": (1.0, 0.7), "classes": ["4", "1"], "stride": 16}
    memory = vd.score_map(image, net, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zarr warns of what stands beside its own files
        written = vd.score_map(image, net, tmp_path / "m.zarr", **options)
        read = vd.read_map(tmp_path / "m.zarr")
    for one, two, three in zip(memory.levels, written.levels, read.levels, strict=True):
        np.testing.assert_array_equal(one.values, two.values[:])
        np.testing.assert_array_equal(one.values, three.values[:])
        assert (one.scale, one.stride, one.window) == (three.scale, three.stride, three.window)
        assert one.step == pytest.approx(three.step)
    assert memory.classes == read.classes == ("4", "1")
    every = vd.score_map(image, net, stride=16).levels[0].values
    assert np.abs(every.sum(axis=0) - 1).max() < 1e-5
    np.testing.assert_array_equal(every[[4, 1]], memory.levels[0].values)


def test_the_file_says_where_cells_lie(net, image, tmp_path, tools):
    """By moving a patch: the cell that changes most is the one whose window the file says holds it."""
    found = vd.score_map(image, net, tmp_path / "m.zarr", softmax=False, scales=(0.5,), stride=8)
    attributes = json.loads((tmp_path / "m.zarr" / "scale_0.5" / "zarr.json").read_text())["attributes"]
    level = found.levels[0]
    for row, column in ((0, 0), (5, 3), (level.values.shape[1] - 1, level.values.shape[2] - 1)):
        top, left, bottom, right = level.window_of(row, column)
        assert (bottom - top, right - left) == pytest.approx(attributes["window"])
        assert top == pytest.approx(row * attributes["stride"][0])
        assert level.center(row, column) == pytest.approx(((top + bottom) / 2, (left + right) / 2))
    base = np.full_like(image, 128)
    before = vd.score_map(base, net, softmax=False, scales=(0.5,), stride=8).levels[0]
    changed = base.copy()
    y, x = before.center(8, 5)
    changed[round(y) - 16 : round(y) + 16, round(x) - 16 : round(x) + 16] = 255
    after = vd.score_map(changed, net, softmax=False, scales=(0.5,), stride=8).levels[0]
    difference = np.abs(after.values - before.values[:]).sum(axis=0)
    rows, columns = (np.average(np.indices(difference.shape)[axis], weights=difference) for axis in (0, 1))
    assert abs(rows - 8) < 1.5
    assert abs(columns - 5) < 1.5


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("memory", [None, "other"])
def test_stopped_anywhere_it_continues(net, rng, tmp_path, monkeypatch, memory):
    image = rng.integers(0, 256, (900, 420, 3), dtype=np.uint8)
    expected = vd.score_map(image, net, softmax=False).levels[0].values
    plain = module.Job._values
    left = [0]

    def stopping(self, scores):
        left[0] -= 1
        if not left[0]:
            raise Stop
        return plain(self, scores)

    monkeypatch.setattr(module.Job, "_values", stopping)
    monkeypatch.setattr("verydeep.scoremaps.plan._works", lambda *args: (0,))
    monkeypatch.setattr("verydeep.scoremaps.store.chunk_rows", lambda kept: 4)
    stops = 0
    while True:
        left[0] = 4
        before = vd.read_map(tmp_path / "m.zarr").levels[0].values[:] if stops else None
        if before is not None:  # what is noted as done is right, and the rest is not there
            known = ~np.isnan(before)
            assert 0 < known.sum() < known.size
            assert np.abs(before[known] - expected[known]).max() < 1e-5 * np.abs(expected).max()
        if memory == "other" and stops == 1:
            monkeypatch.setattr(module, "make_plan", _two_strips(module.make_plan))
        try:
            found = vd.score_map(image, net, tmp_path / "m.zarr", softmax=False)
            break
        except Stop:
            stops += 1
    assert stops >= 2
    assert np.abs(found.levels[0].values[:] - expected).max() < 1e-5 * np.abs(expected).max()
    assert zarr.open_group(tmp_path / "m.zarr").attrs["complete"] is True
    left[0] = 1  # nothing is computed any more
    vd.score_map(image, net, tmp_path / "m.zarr", softmax=False)


def _two_strips(plain):
    from dataclasses import replace

    def plan(*args, **options):
        found = plain(*args, **options)
        halves = []
        for part in found.parts:
            middle = (part.left + part.right) // 2
            halves += [
                Rectangle(part.top, part.left, part.bottom, middle),
                Rectangle(part.top, middle, part.bottom, part.right),
            ]
        return replace(found, parts=tuple(halves))

    return plan


def test_another_map_is_not_written_over(net, image, tmp_path, tools):
    vd.score_map(image, net, tmp_path / "m.zarr")
    for options in ({"stride": 16}, {"scales": (0.5,)}, {"softmax": False}):
        with pytest.raises(UserError, match="holds the map of something else"):
            vd.score_map(image, net, tmp_path / "m.zarr", **options)
    with pytest.raises(UserError, match="network_sha256"):
        vd.score_map(image, tools.make(seed=1), tmp_path / "m.zarr")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="exists, and holds no score map"):
        vd.score_map(image, net, tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["a.txt"]
    with pytest.raises(UserError, match="holds no score map"):
        vd.read_map(tmp_path / "other")


@settings(max_examples=20)
@given(st.integers(0, 200), st.integers(0, 150), st.integers(64, 220), st.integers(64, 200))
def test_a_region_is_a_part_of_the_whole_map(tools, x, y, width, height):
    net = tools.make("A")
    image = np.random.default_rng(5).integers(0, 256, (250, 300, 3), dtype=np.uint8)
    whole = vd.score_map(image, net, softmax=False).levels[0]
    inside = np.zeros(whole.values.shape[1:], bool)
    for i, j in np.ndindex(inside.shape):
        top, left, bottom, right = whole.window_of(i, j)
        inside[i, j] = top >= y and left >= x and bottom <= y + height and right <= x + width
    if not inside.any():
        with pytest.raises(UserError, match="no window of 64 x 64 pixels"):
            vd.score_map(image, net, region=(x, y, width, height))
        return
    found = vd.score_map(image, net, softmax=False, region=(x, y, width, height)).levels[0].values
    assert (~np.isnan(found[0]) == inside).all()
    assert np.abs(found - whole.values)[:, inside].max() < 1e-5 * np.abs(whole.values).max()


@pytest.mark.parametrize("fraction", [1, 4])
def test_a_mask_leaves_cells_out_and_spares_their_work(net, rng, tmp_path, fraction):
    image = rng.integers(0, 256, (803, 402, 3), dtype=np.uint8)
    mask = np.zeros((803 // fraction, 402 // fraction), np.uint8)
    mask[60 // fraction : 200 // fraction, 100 // fraction : 300 // fraction] = 255
    mask[650 // fraction : 700 // fraction, 50 // fraction : 120 // fraction] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    whole = vd.score_map(image, net, softmax=False).levels[0]
    found = vd.score_map(image, net, softmax=False, mask=tmp_path / "mask.png")
    values = found.levels[0].values
    for i, j in np.ndindex(values.shape[1:]):
        y, x = whole.center(i, j)
        if mask[min(int(y / fraction), mask.shape[0] - 1), min(int(x / fraction), mask.shape[1] - 1)]:
            assert np.abs(values[:, i, j] - whole.values[:, i, j]).max() < 1e-5 * np.abs(whole.values).max()
        else:
            assert np.isnan(values[:, i, j]).all()
    assert found.plans[0].macs < 0.6 * vd.score_map(image, net).plans[0].macs
    assert np.isnan(vd.score_map(image, net, mask=np.zeros_like(mask)).levels[0].values).all()


def test_a_truncated_image_keeps_the_map_above(net, rng, tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed (make test installs it)")
    image = rng.integers(0, 256, (700, 300, 3), dtype=np.uint8)
    for name, options in (("strips.tif", {"rowsperstrip": 10}), ("tiled.tif", {"tile": (32, 32)})):
        path = tmp_path / name
        tifffile.imwrite(path, image, photometric="rgb", **options)
        expected = vd.score_map(path, net, softmax=False).levels[0].values
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for scale in (1.0, 0.9):
            out = tmp_path / f"{name}-{scale}.zarr"
            with pytest.raises(UserError, match=r"can be read only down to row 3\d\d; the region 300 x \d+ at \(0, 3"):
                vd.score_map(path, net, out, softmax=False, scales=(scale,))
            kept = vd.read_map(out).levels[0].values[:]
            rows = np.flatnonzero(~np.isnan(kept[0]).any(axis=1))
            assert 2 <= len(rows) < kept.shape[1]
            assert rows.tolist() == list(range(len(rows)))
            if scale == 1:
                difference = np.abs(kept[:, : len(rows)] - expected[:, : len(rows)]).max()
                assert difference < 1e-5 * np.abs(expected).max()
            attributes = zarr.open_group(out).attrs
            assert attributes["complete"] is False
            assert attributes["unreadable"]["y"] + attributes["unreadable"]["height"] == 700


def test_a_full_disk_leaves_nothing_corrupt(net, rng, tmp_path, monkeypatch):
    image = rng.integers(0, 256, (900, 420, 3), dtype=np.uint8)
    monkeypatch.setattr("verydeep.scoremaps.plan._works", lambda *args: (0,))
    monkeypatch.setattr("verydeep.scoremaps.store.chunk_rows", lambda kept: 4)
    import zarr.storage._local as local

    plain, writes = local._put, [0]

    def full(path, value, exclusive=False):
        writes[0] += 1
        if writes[0] > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, value, exclusive)

    with monkeypatch.context() as patched:
        patched.setattr(local, "_put", full)
        with pytest.raises(WorkError, match=r"No space left on device.*; what was written before is kept"):
            vd.score_map(image, net, tmp_path / "m.zarr", softmax=False)
    assert writes[0] > 8
    expected = vd.score_map(image, net, softmax=False).levels[0].values
    kept = vd.read_map(tmp_path / "m.zarr").levels[0].values[:]
    known = ~np.isnan(kept)
    assert np.abs(kept[known] - expected[known]).max(initial=0) < 1e-5 * np.abs(expected).max()
    again = vd.score_map(image, net, tmp_path / "m.zarr", softmax=False).levels[0].values[:]
    assert np.abs(again - expected).max() < 1e-5 * np.abs(expected).max()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.ones((10, 10))}, "10 x 10 pixels, and the image has 250 x 331"),
        ({"mask": np.ones((331, 250, 3))}, "expected height x width"),
        ({"memory": 2**20}, r"1 MiB are too little .* the least that works here is \d+MiB"),
        ({"scales": (0.1,)}, "25 x 33 pixels at scale 0.1 are smaller than one window of B: the least side is 33"),
        ({"scales": ()}, "expected one or more different factors"),
        ({"scales": (1.0, 1.0)}, "expected one or more different factors"),
        ({"classes": ["7"]}, "class '7': 0 of the network's classes have this name"),
        ({"region": (0, 0, 40, 400)}, "no window of 64 x 64 pixels"),
        ({"stride": 5}, "stride 5: this network's maps can have 32, 16"),
        ({"device": "tpu"}, "device 'tpu' is not available"),
    ],
)
def test_requests_without_sense(net, image, options, message):
    with pytest.raises(UserError, match=message) as caught:
        vd.score_map(image, net, **options)
    assert "\n" not in str(caught.value)


def test_the_least_memory_that_is_named_works(net, image):
    with pytest.raises(UserError) as caught:
        vd.score_map(image, net, memory=2**20)
    least = int(str(caught.value).rpartition(" ")[2].removesuffix("MiB"))
    vd.score_map(image, net, memory=(least + 8) * 2**20)  # 8: what the process itself has grown by since


def test_a_network_that_diverged(tools, image):
    net = tools.make()
    net.fc8.bias.data[2] = torch.nan
    with pytest.raises(UserError, match="scores that are not finite"):
        vd.score_map(image, net)


@given(st.lists(st.tuples(*(st.integers(0, 9),) * 4), max_size=5), st.tuples(*(st.integers(0, 9),) * 4))
def test_what_is_left_of_rectangles(gone, part):
    def grid(rectangles):
        found = np.zeros((20, 20), int)
        for one in rectangles:
            found[one.top : one.bottom, one.left : one.right] += 1
        return found

    def rectangle(values):
        top, left, height, width = values
        return Rectangle(top, left, top + height + 1, left + width + 1)

    wanted, done = rectangle(part), [rectangle(values) for values in gone]
    left = grid(subtract([wanted], done))
    np.testing.assert_array_equal(left, grid([wanted]) * (grid(done) == 0))
