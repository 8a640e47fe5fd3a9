"""MATLAB's format 5, judged by SciPy, which writes what is read."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from verydeep.basics.errors import UserError
from verydeep.checkpoints.matfile import read

KINDS = ["f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def same(found, given):
    if isinstance(given, dict):
        return isinstance(found, dict) and list(found) == list(given) and all(same(found[k], given[k]) for k in given)
    if isinstance(given, str):
        return found == given
    if given.dtype.names:
        rows = [{name: row[name] for name in given.dtype.names} for row in given.ravel(order="F")]
        return same(found, rows[0]) if len(rows) == 1 else all(map(same, found, rows)) and len(found) == len(rows)
    if given.dtype == object:
        return len(found) == given.size and all(map(same, found, given.ravel(order="F")))
    return found.shape == given.shape and np.array_equal(found, given)


def cell(*items):
    made = np.empty((1, len(items)), dtype=object)
    made[0, :] = items
    return made


@pytest.mark.parametrize("packed", [True, False])
def test_what_scipy_writes(packed, rng, tmp_path):
    numbers = {f"n{k}": (rng.normal(size=(3, 4, 2, 5)) * 50).astype(k) for k in KINDS}
    structs = np.array([[("a", np.eye(2)), ("bä", np.zeros((1, 3)))]], dtype=[("name", object), ("value", object)])
    content = {
        **numbers,
        "text": "Tinca tinca, Hündin",
        "small": np.array([[7]], np.int16),
        "cells": cell("x", np.ones((2, 3)), cell("deep", {"in": np.array([[1.5]])})),
        "struct": {"pad": np.array([[0.0, 1, 0, 1]]), "type": "pool"},
        "structs": structs,
    }
    savemat(tmp_path / "w.mat", content, do_compression=packed)
    found = read(tmp_path / "w.mat")
    assert list(found) == list(content)
    for name, given_value in content.items():
        assert same(found[name], given_value), name


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9), st.booleans()), min_size=1, max_size=5
    ),
    cut=st.floats(0.2, 1),
    packed=st.booleans(),
)
def test_random_damage_is_one_line_or_harmless(changes, cut, packed, tmp_path):
    path = tmp_path / "w.mat"
    content = {
        "layers": cell({"name": "conv1_1", "weights": cell(np.ones((3, 3)), np.zeros((1, 3)))}, {"type": "relu"})
    }
    savemat(path, content, do_compression=packed)
    data = bytearray(path.read_bytes())
    for share, payload, insert in changes:
        at = int(share * len(data))
        data[at : at if insert else at + len(payload)] = payload
    path.write_bytes(data[: int(cut * len(data))])
    try:
        read(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017


def element(kind, content, size=None):
    return struct.pack("<II", kind, len(content) if size is None else size) + content + bytes(-len(content) % 8)


def array(kind, shape, *parts):
    head = (
        element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, b"x")
    )
    return element(14, head + b"".join(parts))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (element(14, b"", size=2**32 - 1), "an element claims 4,294,967,295 bytes, 0 are left"),
        (b"\0\0\0", "no room for its type and size"),
        (array(7, (2**31 - 1, 2**31 - 1), element(7, bytes(8))), "claims 2147483647 x 2147483647 values and holds 2"),
        (array(1, (2**30, 1)), "an array claims 1,073,741,824 members"),
        (array(2, (1, 1), element(5, struct.pack("<i", 2**30)), element(1, b"a")), "a struct's field names"),
        (array(7, (-1, 2), element(7, bytes(8))), "claims a shape of"),
        (array(7, (1, 2), element(99, bytes(8))), "numbers of type 99"),
        (element(15, zlib.compress(element(14, bytes(10**9 // 8)))), "unpacks to more than"),
        (element(15, b"no deflated data"), "is damaged or cut off"),
    ],
)
def test_what_lies_is_refused(content, said, tmp_path):
    (tmp_path / "w.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + content)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "w.mat")


def test_arrays_in_arrays_without_end(tmp_path):
    nested = array(7, (1, 1), element(7, bytes(4)))
    for _ in range(2000):
        nested = array(1, (1, 1), nested)
    (tmp_path / "w.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + nested)
    with pytest.raises(UserError, match="over 16 levels deep"):
        read(tmp_path / "w.mat")


def test_other_forms(tmp_path):
    path = tmp_path / "w.mat"
    for head in (b"MATLAB", b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI", bytes(128)):
        path.write_bytes(head)
        with pytest.raises(UserError, match=r"no .mat file of MATLAB's format 5"):
            read(path)
