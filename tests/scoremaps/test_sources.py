"""Every kind of image, read in parts, against its pixels as they were made."""

import numpy as np
import pytest
from PIL import Image

from verydeep.basics.errors import BadImageError, UserError
from verydeep.images.decode import decode
from verydeep.images.files import read_picture
from verydeep.scoremaps.sources import TruncatedImageError, open_image

pyvips = pytest.importorskip("pyvips", reason="pyvips is not installed (make test installs it)")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed (make test installs it)")
zarr = pytest.importorskip("zarr", reason="zarr is not installed (it needs Python 3.11)")


@pytest.fixture
def pixels(rng):
    coarse = rng.integers(0, 256, (13, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((277, 341), Image.Resampling.BICUBIC))


def vips(pixels):
    height, width = pixels.shape[:2]
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    kind = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}[str(pixels.dtype)]
    return pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).tobytes(), width, height, bands, kind)


def in_bands(source, band=50, left=0, width=None):
    width = width or source.width - left
    rows = [source.read(y, left, min(band, source.height - y), width) for y in range(0, source.height, band)]
    return np.concatenate(rows)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "a.png"},
        {"name": "interlaced.png", "interlace": True},
        {"name": "strips.tif"},
        {"name": "tiled.tif", "tile": True, "tile_width": 64, "tile_height": 64},
        {"name": "pyramid.tif", "tile": True, "tile_width": 64, "tile_height": 64, "pyramid": True},
        {"name": "big.tif", "bigtiff": True, "tile": True, "compression": "deflate"},
    ],
    ids=lambda options: options["name"],
)
def test_lossless_files(tmp_path, pixels, options):
    path = tmp_path / options.pop("name")
    vips(pixels).write_to_file(str(path), **options)
    source = open_image(path)
    assert (source.height, source.width) == pixels.shape[:2]
    np.testing.assert_array_equal(in_bands(source), pixels)
    np.testing.assert_array_equal(in_bands(source, 37, 100, 50), pixels[:, 100:150])  # again, from the top
    np.testing.assert_array_equal(in_bands(open_image(str(path)), 400), pixels)


@pytest.mark.parametrize("quality", [75, 95])
def test_jpeg_as_the_rest_of_the_project_decodes_it(tmp_path, pixels, quality):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=quality)
    np.testing.assert_array_equal(in_bands(open_image(path)), decode(path.read_bytes(), "a.jpg"))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_upright(tmp_path, pixels, orientation):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    np.testing.assert_array_equal(in_bands(open_image(path)), decode(path.read_bytes(), "a.jpg"))


def test_gray_alpha_and_sixteen_bits_as_elsewhere(tmp_path, rng, pixels):
    gray = pixels[:, :, 0]
    alpha = np.dstack([pixels, rng.integers(0, 256, gray.shape, dtype=np.uint8)])
    for name, image in (("gray", Image.fromarray(gray)), ("alpha", Image.fromarray(alpha))):
        path = tmp_path / f"{name}.png"
        image.save(path)
        np.testing.assert_array_equal(in_bands(open_image(path)), decode(path.read_bytes(), name))
    deep = rng.integers(0, 65536, (60, 50, 3)).astype(np.uint16)
    vips(deep).write_to_file(str(tmp_path / "deep.tif"))
    source = open_image(tmp_path / "deep.tif")
    assert source.bits == 16
    np.testing.assert_array_equal(in_bands(source), deep >> 8)
    np.testing.assert_array_equal(in_bands(open_image(deep)), deep >> 8)


def test_arrays_memory_maps_and_zarr(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(64, 64, 3))
    planes = pixels.transpose(2, 0, 1)
    group = zarr.create_group(tmp_path / "ome.zarr", attributes={"multiscales": [{"datasets": [{"path": "0"}]}]})
    array = group.create_array("0", shape=(1, *planes.shape), chunks=(1, 1, 64, 64), dtype="uint8")
    array[:] = planes[None]
    group.create_array("1", shape=(1, 3, 2, 2), dtype="uint8")
    images = [pixels, planes, tmp_path / "a.npy", tmp_path / "a.zarr", zarr.open(tmp_path / "a.zarr"),
              tmp_path / "ome.zarr", Image.fromarray(pixels)]  # fmt: skip
    for image in images:
        np.testing.assert_array_equal(in_bands(open_image(image)), pixels)
        np.testing.assert_array_equal(in_bands(open_image(image), 30, 70, 90), pixels[:, 70:160])


def test_a_chunk_of_zarr_is_read_once(tmp_path, pixels, monkeypatch):
    zarr.create_array(tmp_path / "a.zarr", data=pixels, chunks=(64, 64, 3))
    array = zarr.open(tmp_path / "a.zarr")
    read = []
    plain = type(array).__getitem__
    monkeypatch.setattr(type(array), "__getitem__", lambda self, where: read.append(where[0]) or plain(self, where))
    in_bands(open_image(array), 10)
    assert [(rows.start, rows.stop) for rows in read] == [(s, min(s + 64, 341)) for s in range(0, 341, 64)]


@pytest.mark.parametrize("kind", ["strips.tif", "deflate.tif", "tiled.tif", "a.jpg", "a.png"])
def test_truncated_files_say_how_far_they_go(tmp_path, pixels, kind):
    path = tmp_path / kind
    if kind.endswith("tif"):  # the directory comes first
        options = {"tile": (64, 64)} if kind == "tiled.tif" else {"rowsperstrip": 16}
        compression = "zlib" if kind == "deflate.tif" else None
        tifffile.imwrite(path, pixels, photometric="rgb", compression=compression, **options)
    else:
        Image.fromarray(pixels).save(path, quality=95)
    whole = in_bands(open_image(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_image(path)
    with pytest.raises(TruncatedImageError) as caught:
        in_bands(source, 100)
    rows = caught.value.rows
    assert 60 < rows < 300
    # libjpeg smears the last row of blocks, which it has not got all of.
    sure = rows - 16 if kind == "a.jpg" else rows
    np.testing.assert_array_equal(source.read(0, 0, rows, source.width)[:sure], whole[:sure])
    with pytest.raises(TruncatedImageError):
        source.read(0, 0, rows + 1, source.width)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), "float32 samples have no known range"),
        (np.zeros((9, 9, 5), np.uint8), r"shape \(9, 9, 5\); expected height x width x 3"),
        (np.zeros((9, 9, 9, 3), np.uint8), "expected height x width x 3"),
        (np.zeros((9, 9, 3), np.int32), "int32 samples have no known range"),
    ],
)
def test_arrays_without_sense(array, message):
    with pytest.raises(UserError, match=message):
        open_image(array)


def test_files_without_sense(tmp_path, rng):
    vips(rng.random((20, 20, 3), np.float32)).write_to_file(str(tmp_path / "float.tif"))
    (tmp_path / "text.tif").write_text("no image")
    (tmp_path / "empty.zarr").mkdir()
    zarr.create_group(tmp_path / "two.zarr").create_array("a", shape=(3, 3), dtype="u1")
    zarr.open_group(tmp_path / "two.zarr").create_array("b", shape=(3, 3), dtype="u1")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object))
    for name, message in (
        ("float.tif", "float samples have no known range"),
        ("text.tif", "not a readable image"),
        ("gone.tif", "no such image"),
        ("empty.zarr", "not a readable zarr array"),
        ("two.zarr", "holds the arrays a, b; give one"),
        ("pickle.npy", "no readable array"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            open_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    assert issubclass(BadImageError, UserError)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_inks_become_the_colors_that_they_become_everywhere(suffix, rng, tmp_path):
    path = tmp_path / f"inks.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 60, 4), dtype=np.uint8), "CMYK").save(path)
    source = open_image(path)
    np.testing.assert_array_equal(source.read(0, 0, source.height, source.width), read_picture(path))


def test_a_picture_that_is_decoded_whole_counts_so(tmp_path):
    Image.new("RGB", (64, 2000)).save(tmp_path / "tall.webp")
    Image.new("RGB", (64, 2000)).save(tmp_path / "tall.png")
    assert open_image(tmp_path / "tall.webp").row_bytes >= 9 * 2000
    assert open_image(tmp_path / "tall.png").row_bytes < 9 * 2000
