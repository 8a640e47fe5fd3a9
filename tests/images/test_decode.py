"""Every format against arrays known beforehand; every kind of damage against one line of error."""

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.basics.errors import BadImageError
from verydeep.images.decode import decode, size

# Formats that keep every pixel, with the options that make them.
LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
    ("PPM", {}),
    ("JPEG2000", {}),
]


def assert_refused(data, *words, **options):
    with pytest.raises(BadImageError) as caught:
        decode(data, "folder/a.tar/b c.jpg", **options)
    assert caught.value.name == "folder/a.tar/b c.jpg"
    assert str(caught.value) == f"folder/a.tar/b c.jpg: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in caught.value.reason


@pytest.mark.parametrize(("file_format", "options"), LOSSLESS)
def test_lossless_files_give_their_pixels(file_format, options, rng, draw, encode):
    image = draw(rng, *rng.integers(1, 70, 2))
    data = encode(image, file_format, **options)
    decoded = decode(data, "x")
    np.testing.assert_array_equal(decoded, image)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable
    assert size(data, "x") == image.shape[:2]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "JPEG"])
def test_gray_becomes_three_equal_channels(file_format, rng, draw, encode):
    gray = draw(rng, 40, 50)[..., 0]
    data = encode(gray, file_format)
    decoded = decode(data, "x")
    assert decoded.shape == (40, 50, 3)
    assert np.ptp(decoded, axis=2).max() == 0
    expected = np.asarray(Image.open(io.BytesIO(data))) if file_format == "JPEG" else gray
    np.testing.assert_array_equal(decoded[..., 0], expected)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_near_its_source(subsampling, progressive, rng, draw, encode):
    image = cv2.blur(draw(rng, 61, 83), (9, 9))
    data = encode(image, "JPEG", quality=98, subsampling=subsampling, progressive=progressive)
    assert np.abs(decode(data, "x").astype(float) - image).mean() < 2
    assert size(data, "x") == (61, 83)


def test_palettes_and_bits(rng, encode):
    colors = rng.integers(0, 256, (16, 3), np.uint8)
    indices = rng.integers(0, 16, (20, 30), np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colors.tobytes())
    for file_format in ("PNG", "TIFF", "BMP", "GIF"):
        np.testing.assert_array_equal(decode(encode(image, file_format), "x"), colors[indices])
    bits = rng.random((20, 30)) < 0.5
    one_bit = Image.fromarray(np.where(bits, 255, 0).astype(np.uint8)).convert("1", dither=Image.Dither.NONE)
    np.testing.assert_array_equal(decode(encode(one_bit, "PNG"), "x")[..., 1], np.where(bits, 255, 0))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_on_white(file_format, rng, encode):
    image = rng.integers(0, 256, (20, 30, 4), np.uint8)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    color, alpha = image[..., :3].astype(float), image[..., 3:] / 255
    decoded = decode(encode(image, file_format, **options), "x")
    assert np.abs(decoded - (alpha * color + (1 - alpha) * 255)).max() <= 1


def test_transparency_of_palettes_gray_and_color_keys(rng, encode):
    colors = rng.integers(0, 200, (4, 3), np.uint8)
    indices = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    decoded = decode(encode(image, "PNG", transparency=bytes([255, 0, 128, 255])), "x")
    half = colors[2] * (128 / 255) + 255 * (127 / 255)
    np.testing.assert_allclose(decoded.reshape(4, 3), [colors[0], [255] * 3, half, colors[3]], atol=1)
    gray = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8))
    np.testing.assert_array_equal(decode(encode(gray, "PNG"), "x"), [[[10] * 3, [255] * 3]])
    keyed = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    decoded = decode(encode(keyed, "PNG", transparency=(1, 2, 3)), "x")
    np.testing.assert_array_equal(decoded, [[[9, 8, 7], [255] * 3]])


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_sixteen_bits_keep_the_high_byte(shape, rng):
    samples = rng.integers(0, 65536, shape).astype(np.uint16)
    expected = np.broadcast_to((samples >> 8).reshape(20, 30, -1), (20, 30, 3))
    for extension in (".png", ".tiff"):
        data = cv2.imencode(extension, samples)[1].tobytes()  # Pillow cannot write 16-bit color
        np.testing.assert_array_equal(decode(data, "x")[..., ::-1], expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_zero_is_white_in_tiff_files_that_say_so(bits, rng):
    samples = rng.integers(0, 2**bits, (20, 30)).astype(f"u{bits // 8}")
    file = io.BytesIO()
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(file, samples, photometric="miniswhite")
    np.testing.assert_array_equal(decode(file.getvalue(), "x")[..., 0], 255 - (samples >> (bits - 8)))


def test_sixteen_bit_pgm(rng):
    samples = rng.integers(0, 65536, (20, 30)).astype(">u2")
    np.testing.assert_array_equal(decode(b"P5 30 20 65535\n" + samples.tobytes(), "x")[..., 0], samples >> 8)


def test_avif_and_heic_are_near_their_source(draw, rng, encode):
    image = cv2.blur(draw(rng, 64, 80), (9, 9))
    assert np.abs(decode(encode(image, "AVIF", quality=90), "x").astype(float) - image).mean() < 4
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(image)).save(file, quality=95)
    assert np.abs(decode(file.getvalue(), "x").astype(float) - image).mean() < 4


def test_a_format_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr("verydeep.images.formats.find_spec", lambda name: None)
    assert_refused(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not read here", "verydeep[heic]", "convert it to JPEG"
    )


def test_cmyk_and_ycck(rng, encode):
    cmyk = rng.integers(0, 256, 4)
    flat = np.broadcast_to(cmyk.astype(np.uint8), (16, 16, 4))
    c, m, y, k = cmyk.astype(float)
    expected = (255 - np.array([c, m, y])) * (255 - k) / 255
    for file_format, options in (("JPEG", {"quality": 100}), ("TIFF", {})):
        data = encode(Image.fromarray(flat, "CMYK"), file_format, **options)
        assert np.abs(decode(data, "x") - expected).max() < 4
    # YCCK is CMYK whose stored (inverted) C, M, Y went through the YCbCr matrix; Pillow writes Adobe's marker with
    # transform 0 (CMYK), which is made 2 (YCCK) here.
    luma = 0.299 * c + 0.587 * m + 0.114 * y
    ycc = [luma, 128 + (y - luma) / 1.772, 128 + (c - luma) / 1.402]
    stored = np.rint(255 - np.array([*ycc, 255 - k])).clip(0, 255).astype(np.uint8)
    data = bytearray(encode(Image.fromarray(np.broadcast_to(stored, (16, 16, 4)), "CMYK"), "JPEG", quality=100))
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    data[adobe + 11] = 2
    assert np.abs(decode(bytes(data), "x") - expected).max() < 6


# Where the EXIF specification says that stored row r, column c of an upright H x W picture comes from.
PLACES = {
    1: lambda r, c, h, w: (r, c),
    2: lambda r, c, h, w: (r, w - 1 - c),
    3: lambda r, c, h, w: (h - 1 - r, w - 1 - c),
    4: lambda r, c, h, w: (h - 1 - r, c),
    5: lambda r, c, h, w: (c, r),
    6: lambda r, c, h, w: (c, w - 1 - r),
    7: lambda r, c, h, w: (h - 1 - c, w - 1 - r),
    8: lambda r, c, h, w: (h - 1 - c, r),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_honored(file_format, orientation, rng, draw, encode):
    upright = cv2.blur(draw(rng, 24, 40), (7, 7))
    rows, columns = np.indices((24, 40) if orientation < 5 else (40, 24))
    stored = upright[PLACES[orientation](rows, columns, 24, 40)]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(file_format, {})
    data = encode(stored, file_format, exif=exif, **options)
    decoded = decode(data, "x")
    assert decoded.shape == upright.shape == (*size(data, "x"), 3)
    assert np.abs(decoded.astype(int) - upright).max() <= (9 if file_format == "JPEG" else 0)
    assert decoded.flags.c_contiguous


def test_damaged_metadata_does_not_make_the_picture_bad(rng, draw, encode):
    image = draw(rng, 20, 30)
    data = encode(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + rng.bytes(30))
    assert decode(data, "x").shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("file_format", "options"), [*LOSSLESS, ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("GIF", {})]
)
def test_a_file_cut_short_is_refused(file_format, options, rng, encode):
    data = encode(rng.integers(0, 256, (90, 110, 3), np.uint8), file_format, **options)
    for share in (0, 0.001, *rng.uniform(0.002, 0.98, 6)):
        assert_refused(data[: int(share * len(data))])


def test_what_is_no_image_is_refused(rng, encode):
    assert_refused(b"", "empty file")
    assert_refused(b"<html>404</html>", "not an image", "JPEG")
    assert_refused(b"\0" * 1000, "not an image")
    assert_refused(b"\xff\xd8\xff" + rng.bytes(100), "damaged header")
    with pytest.raises(BadImageError, match="a/b: empty file"):
        size(b"", "a/b")


def test_samples_of_unknown_range_are_refused(encode):
    assert_refused(encode(Image.new("F", (5, 5)), "TIFF"), "no known range")
    assert_refused(encode(Image.new("I", (5, 5)), "TIFF"), "no known range")


def test_jpeg_with_surplus_bytes_is_read(rng, draw, encode):
    data = encode(draw(rng, 50, 60), "JPEG")
    assert data.endswith(b"\xff\xd9")
    surplus = data[:-2] + b"\x12\x34\x56" + data[-2:] + b"behind the end"
    np.testing.assert_array_equal(decode(surplus, "x"), decode(data, "x"))


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_bombs_are_refused_by_their_header(rng, draw, encode):
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(1000)))
    png = b"\x89PNG\r\n\x1a\n" + header + pixels + _chunk(b"IEND", b"")
    jpeg = bytearray(encode(draw(rng, 64, 64), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    began = time.process_time()
    for data in (png, bytes(jpeg)):
        assert_refused(data, "60000 x 60000 pixels", "178,956,970")
    assert time.process_time() - began < 1
    for damaged in (png.replace(struct.pack(">I", 60_000), bytes(4)), bytes(jpeg[: frame + 5]) + bytes(500)):
        assert_refused(damaged, "damaged header")
    image = encode(draw(rng, 10, 20), "PNG")
    assert decode(image, "x", max_pixels=200).shape == (10, 20, 3)
    assert_refused(image, "20 x 10 pixels, more than the limit of 199", max_pixels=199)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_damage_anywhere_gives_a_picture_or_one_line(encode, draw, file_format, damages, seed):
    image = draw(np.random.default_rng(seed), 17, 23)
    data = bytearray(encode(image, file_format))
    for place, wrong in damages:
        start = int(place * len(data))
        data[start : start + len(wrong)] = wrong
    try:
        decoded = decode(bytes(data), "x", max_pixels=1_000_000)
    except BadImageError as error:
        problem = str(error)
    else:
        problem = "x: none"
        assert decoded.shape == (*size(bytes(data), "x"), 3)
        assert decoded.dtype == np.uint8
    assert problem.startswith("x: ")
    assert "\n" not in problem


def test_real_photographs_decode_as_with_pillow(shared_data):
    import tarfile

    with tarfile.open(shared_data / "imagenet-samples.tar") as archive:
        members = [member for member in archive if member.isfile()][::8]
        for member in members:
            data = archive.extractfile(member).read()
            image = Image.open(io.BytesIO(data))
            if image.getexif().get(274, 1) == 1:
                np.testing.assert_array_equal(decode(data, member.name), np.asarray(image.convert("RGB")))
    assert len(members) == 25
