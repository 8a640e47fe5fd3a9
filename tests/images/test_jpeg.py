"""Partial and reduced decoding against decoding the whole file."""

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.jpeg import decode_top, is_damage, read_exif, read_size


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["444", "422", "420", "440", "411", "Gray"]),
    st.integers(1, 120),
    st.integers(1, 90),
    st.floats(0, 1),
    st.sampled_from([0, 1, 3]),
    st.integers(0, 2**32 - 1),
)
def test_top_rows_are_those_of_the_whole(encode, draw, subsampling, height, width, share, restart, seed):
    image = draw(np.random.default_rng(seed), height, width)
    gray = subsampling == "Gray"
    options = {"restart_marker_blocks": restart} if restart else {}
    if gray or options:
        data = encode(image[..., 0] if gray else image, "JPEG", **options)
    else:
        data = simplejpeg.encode_jpeg(image, colorsubsampling=subsampling)
    assert read_size(data) == (height, width)
    rows = max(1, int(share * height))
    top = decode_top(data, height, width, rows)
    assert top.shape == (rows, width, 3)
    sure = rows if rows == height else max(0, rows - 2)
    np.testing.assert_array_equal(top[:sure], simplejpeg.decode_jpeg(data)[:sure])


def test_single_pixel_is_not_reduced(encode):
    column = np.repeat(np.array([0] * 4 + [255] * 4, np.uint8), 3).reshape(8, 1, 3)
    data = encode(column, "JPEG", quality=100)
    assert decode_top(data, 8, 1, 1).max() < 20


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_is_near_the_mean_of_blocks(reduction, rng, draw, encode):
    height, width = 96, 160
    image = draw(rng, height, width)
    data = encode(image, "JPEG", quality=97, subsampling=0)
    blocks = image.reshape(height // reduction, reduction, width // reduction, reduction, 3).mean((1, 3))
    reduced = decode_top(data, height, width, height, reduction)
    assert reduced.shape == blocks.shape
    assert np.abs(reduced - blocks).mean() < 3
    top = decode_top(data, height, width, 40, reduction)
    np.testing.assert_array_equal(top[:-2], reduced[: 40 // reduction - 2])


@pytest.mark.parametrize("size", [(65, 33), (64, 31), (9, 1)])
def test_reduced_sizes_are_rounded_up(size, rng, draw, encode):
    data = encode(draw(rng, *size), "JPEG")
    for reduction in (2, 4, 8):
        reduced = decode_top(data, *size, size[0], reduction)
        assert reduced.shape == (-(-size[0] // reduction), -(-size[1] // reduction), 3)


def test_progressive_files_are_decoded_whole(rng, draw, encode):
    data = encode(draw(rng, 64, 48), "JPEG", progressive=True)
    np.testing.assert_array_equal(decode_top(data, 64, 48, 20), simplejpeg.decode_jpeg(data))


def test_damage_is_seen_in_the_rows_decoded_and_a_cut_anywhere(rng, encode):
    data = encode(rng.integers(0, 256, (128, 128, 3), np.uint8), "JPEG")
    for share in rng.uniform(0.1, 0.98, 8):
        with pytest.raises(ValueError, match="Premature end") as caught:
            decode_top(data[: int(share * len(data))], 128, 128, 40)
        assert is_damage(caught.value)
    middle = len(data) // 5
    damaged = data[:middle] + b"\xff\xd9" + data[middle:]
    with pytest.raises(ValueError, match="premature end of data segment") as caught:
        decode_top(damaged, 128, 128, 64)
    assert is_damage(caught.value)


def test_thumbnails_are_not_mistaken_for_the_frame(rng, draw, encode):
    thumbnail = encode(draw(rng, 16, 16), "JPEG")
    image = draw(rng, 80, 60)
    data = encode(image, "JPEG")
    wrapped = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    np.testing.assert_array_equal(decode_top(wrapped, 80, 60, 40)[:38], simplejpeg.decode_jpeg(data)[:38])


def test_padding_before_markers(rng, draw, encode):
    """Any number of FF bytes may stand before a marker."""
    exif = Image.Exif()
    exif[274] = 3
    data = encode(draw(rng, 80, 60), "JPEG", exif=exif)
    padded = data
    for marker in (b"\xff\xe1", b"\xff\xc0"):
        padded = padded.replace(marker, b"\xff\xff\xff" + marker, 1)
    assert len(padded) == len(data) + 6
    assert read_exif(padded) == read_exif(data) != b""
    np.testing.assert_array_equal(decode_top(padded, 80, 60, 40), decode_top(data, 80, 60, 40))
    assert len(decode_top(padded, 80, 60, 40)) == 40


def test_what_it_cannot_read(encode, rng, draw):
    assert read_size(b"") is None
    assert read_size(encode(draw(rng, 8, 8), "PNG")) is None
    assert read_size(encode(Image.new("CMYK", (8, 8)), "JPEG")) is None
    assert read_size(b"\xff\xd8\xff\xe0") is None
