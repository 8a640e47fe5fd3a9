"""Picture files in folders."""

import pytest

from verydeep.basics.errors import UserError
from verydeep.images.files import find_pictures


def test_a_folder_stands_for_the_pictures_below(tmp_path):
    for name in ("b.JPG", "a/c.png", "notes.txt", "a.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    expected = [tmp_path / "a" / "c.png", tmp_path / "a.jpeg", tmp_path / "b.JPG"]
    assert find_pictures([tmp_path]) == expected
    assert find_pictures([tmp_path / "notes.txt", tmp_path / "a"]) == [tmp_path / "notes.txt", expected[0]]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"without pictures \(it holds 1 \.mp4\)"):
        find_pictures([tmp_path / "empty"])


def test_what_decodes_is_a_picture_whatever_its_name(tmp_path, encode, rng, draw):
    for name, kind in (("no_ending", "JPEG"), ("x.bin", "PNG"), ("y.jpg", None), (".hidden.png", "PNG")):
        (tmp_path / name).write_bytes(encode(draw(rng, 8, 9), kind) if kind else b"text")
    assert [path.name for path in find_pictures([tmp_path])] == ["no_ending", "x.bin", "y.jpg"]
