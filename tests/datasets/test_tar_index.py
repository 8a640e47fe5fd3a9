"""The index of a tar against what the standard library's tarfile reads."""

import io
import os
import tarfile

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets.tar_index import index_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LONG = "folder/" + "x" * 80 + "/" + "y" * 90 + ".jpg"  # 180 characters: two parts in ustar, a record else
VERY_LONG = "/".join("z" * 60 for _ in range(6)) + "/größe-日本.jpg"  # what ustar cannot hold


def _write(path, names, rng, kind):
    contents = {name: rng.bytes(int(rng.integers(0, 3000))) for name in names}
    with tarfile.open(path, "w", format=kind) as archive:
        archive.addfile(_member("folder", type=tarfile.DIRTYPE))
        for name, data in contents.items():
            archive.addfile(_member(name, size=len(data)), io.BytesIO(data))
    return contents


def _member(name, **attributes):
    member = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


def _read(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = index_tar(descriptor, 0, os.fstat(descriptor).st_size, str(path))
        return {name: os.pread(descriptor, size, offset) for name, (offset, size) in found.items()}
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_member_of_each_format(tmp_path, rng, kind):
    names = ["a.jpg", "./folder/b.jpg", LONG] + [VERY_LONG] * (kind != "ustar")
    contents = _write(tmp_path / "a.tar", names, rng, FORMATS[kind])
    assert _read(tmp_path / "a.tar") == {os.path.normpath(name): data for name, data in contents.items()}


def test_links_give_the_file_they_name_and_the_last_of_one_name_counts(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b"first", b"second"):
            archive.addfile(_member("d/a.jpg", size=len(data)), io.BytesIO(data))
        archive.addfile(_member("d/hard.jpg", type=tarfile.LNKTYPE, linkname="d/a.jpg"))
        archive.addfile(_member("e/soft.jpg", type=tarfile.SYMTYPE, linkname="../d/hard.jpg"))
        archive.addfile(_member("e/broken.jpg", type=tarfile.SYMTYPE, linkname="nothing"))
    assert _read(tmp_path / "a.tar") == {"d/a.jpg": b"second", "d/hard.jpg": b"second", "e/soft.jpg": b"second"}


def test_a_damaged_header_and_a_cut_are_said(tmp_path, rng):
    path = tmp_path / "a.tar"
    _write(path, [f"{i}.jpg" for i in range(20)], rng, tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        middle = archive.getmembers()[10]
    path.write_bytes(whole[: middle.offset] + b"?" * 20 + whole[middle.offset + 20 :])
    with pytest.raises(UserError, match=f"a.tar: is damaged at byte {middle.offset}"):
        _read(path)
    path.write_bytes(whole[: middle.offset_data + middle.size // 2])
    with pytest.raises(UserError, match=r"a\.tar: .*cut"):
        _read(path)
    path.write_bytes(rng.bytes(5000))
    with pytest.raises(UserError, match=r"a\.tar: is not a tar file"):
        _read(path)


def test_a_tar_within_a_tar(tmp_path, rng):
    inner = _write(tmp_path / "inner.tar", ["1.jpg", "2.jpg"], rng, tarfile.GNU_FORMAT)
    with tarfile.open(tmp_path / "outer.tar", "w") as archive:
        archive.add(tmp_path / "inner.tar", "inner.tar")
        offset = archive.getmember("inner.tar").offset
    with tarfile.open(tmp_path / "outer.tar") as archive:
        offset = archive.getmember("inner.tar").offset_data
    descriptor = os.open(tmp_path / "outer.tar", os.O_RDONLY)
    end = offset + (tmp_path / "inner.tar").stat().st_size
    found = index_tar(descriptor, offset, end, "outer.tar")
    assert {name: os.pread(descriptor, size, at) for name, (at, size) in found.items()} == inner
    os.close(descriptor)
