"""Pipes, devices, sockets and links in circles among pictures: named, and never waited for."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from verydeep.basics.errors import BadImageError
from verydeep.datasets.opening import Reading
from verydeep.images.files import read_picture


def _irregular(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            os.chdir(path.parent)  # the name of a socket is short
            opened.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "link to itself"])
def test_it_is_named_as_a_damaged_picture(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    bad = tmp_path / "a" / "x.png"
    _irregular(kind, bad)
    with pytest.raises(BadImageError, match=r"x\.png: .*(no regular|symbolic links|is a directory|no such device)"):
        read_picture(bad)
    if kind == "folder":
        return  # it is looked into, and holds nothing
    dataset = Reading(on_bad_image="skip").open(tmp_path, "train")
    assert [Path(error.name) for error in dataset.bad] == [bad]
