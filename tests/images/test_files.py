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
    with pytest.raises(UserError, match="without pictures"):
        find_pictures([tmp_path / "empty"])
