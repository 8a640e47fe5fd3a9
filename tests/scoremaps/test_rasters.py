"""TIFF pyramids and where they lie on the earth; the overview."""

import json

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.scoremaps.georeference import read_georeference
from verydeep.scoremaps.overview import draw_overview, thumbnail
from verydeep.scoremaps.rasters import best_class, write_raster
from verydeep.scoremaps.sources import open_image

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed (make test installs it)")

KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)  # projected, UTM 33N


def geotiff(path, image, tags, keys=KEYS):
    tifffile.imwrite(
        path, image, photometric="rgb", tile=(64, 64),
        extratags=[*tags, (34735, "H", len(keys), keys, True), (34737, "s", 0, "WGS 84 / UTM zone 33N|", True)],
    )  # fmt: skip


AREA = [(33550, "d", 3, (0.5, 0.25, 0.0), True), (33922, "d", 6, (10.0, 20.0, 0.0, 1000.0, 5000.0, 0.0), True)]
TURNED = [(34264, "d", 16, (0.4, -0.3, 0, 700.0, 0.3, 0.4, 0, 900.0, 0, 0, 0, 0, 0, 0, 0, 1), True)]


@pytest.mark.parametrize("tags", [AREA, TURNED])
def test_maps_lie_where_their_images_do(tmp_path, rng, net, tags):
    image = rng.integers(0, 256, (300, 260, 3), dtype=np.uint8)
    geotiff(tmp_path / "a.tif", image, tags)
    found = vd.score_map(tmp_path / "a.tif", net, tmp_path / "m.zarr", scales=(0.5,))
    write_raster(vd.read_map(tmp_path / "m.zarr"), tmp_path / "best.tif")
    before, after = read_georeference(tmp_path / "a.tif"), read_georeference(tmp_path / "best.tif")
    with tifffile.TiffFile(tmp_path / "best.tif") as tiff:
        codes = {tag.code: tag.value for tag in tiff.pages[0].tags}
    assert tuple(codes[34735]) == KEYS
    assert codes[34737].startswith("WGS 84")
    # The middle of a cell's pixel is the middle of its window, on the earth.
    for cell in ((0, 0), (2, 1)):
        y, x = found.levels[0].center(*cell)
        assert after.at(cell[0] + 0.5, cell[1] + 0.5) == pytest.approx(before.at(y, x))


def test_ties_by_hand(tmp_path, rng):
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    geotiff(tmp_path / "area.tif", image, AREA)
    assert read_georeference(tmp_path / "area.tif").at(20, 10) == (1000.0, 5000.0)
    assert read_georeference(tmp_path / "area.tif").at(22, 14) == (1002.0, 4999.5)
    geotiff(tmp_path / "point.tif", image, AREA, keys=(*KEYS[:11], 2, *KEYS[12:]))
    assert read_georeference(tmp_path / "point.tif").at(20.5, 10.5) == (1000.0, 5000.0)
    tifffile.imwrite(tmp_path / "plain.tif", image, photometric="rgb")
    assert read_georeference(tmp_path / "plain.tif") is None
    assert read_georeference(image) is None


def test_rasters_hold_the_map(tmp_path, rng, net):
    image = rng.integers(0, 256, (1200, 900, 3), dtype=np.uint8)
    mask = np.ones((1200, 900), bool)
    mask[:300, :300] = False
    found = vd.score_map(image, net, stride=4, mask=mask)
    values = found.levels[0].values
    write_raster(found, tmp_path / "best.tif")
    write_raster(found, tmp_path / "one.tif", "3")
    with tifffile.TiffFile(tmp_path / "best.tif") as tiff:
        best, levels = tiff.asarray(), [level.asarray() for level in tiff.series[0].levels]
        about = json.loads(tiff.pages[0].description)
    known = ~np.isnan(values[0])
    assert (best[known] == values.argmax(axis=0)[known]).all()
    assert (best[~known] == 65535).all()
    assert best.dtype == np.uint16
    assert about["classes"] == list(found.classes)
    np.testing.assert_array_equal(levels[1], best[::2, ::2])
    assert max(levels[-1].shape) <= 256
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "one.tif"), values[3])
    index, value = best_class(found.levels[0])
    np.testing.assert_array_equal(index, best)
    np.testing.assert_array_equal(value[known], values.max(axis=0)[known])
    with pytest.raises(UserError, match="class 'x' is not in the map"):
        write_raster(found, tmp_path / "x.tif", "x")
    with pytest.raises(UserError, match=r"must end in .tif"):
        write_raster(found, tmp_path / "x.png")


def test_overview(tmp_path, net):
    """A class is drawn in its color where it is best, and nowhere else."""
    image = np.full((640, 960, 3), 100, np.uint8)
    found = vd.score_map(image, net)
    values = np.full_like(found.levels[0].values, 0.1)
    values[2, :, 15:] = 0.9
    np.copyto(found.levels[0].values, values)
    draw_overview(found, open_image(image), tmp_path / "new" / "o.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "o.png").convert("RGB")).astype(int)
    row = picture[picture.shape[0] // 2]
    colored = np.flatnonzero(np.ptp(row, axis=1) > 60)
    assert len(colored) > 200
    assert (np.diff(colored) == 1).mean() > 0.99
    assert colored[0] > picture.shape[1] * 0.3
    with pytest.raises(UserError, match="must end in"):
        draw_overview(found, open_image(image), tmp_path / "o.doc")


def test_a_thumbnail_is_means_of_blocks(rng):
    image = rng.integers(0, 256, (70, 4001, 3), dtype=np.uint8)
    small = thumbnail(open_image(image))
    assert small.shape == (23, 1333, 3)
    assert abs(int(small[4, 100, 1]) - image[12:15, 300:303, 1].mean()) < 1
