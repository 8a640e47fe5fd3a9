import pytest

from verydeep.basics.errors import UserError
from verydeep.checkpoints.protobuf import Decoder, Field, encode

INNER = {"name": Field(1, "text"), "sides": Field(2, "int"), "data": Field(3, "bytes"), "mean": Field(4, "float")}
OUTER = {"inner": Field(100, INNER), "number": Field(7, "int")}


def decode(data: bytes, schema=OUTER):
    return Decoder("file").decode(memoryview(data), schema)


def test_what_is_encoded_is_decoded():
    message = {"inner": [{"name": "ä", "sides": [1, -5, 2**40]}, {"data": b"\x00" * 300, "mean": 0.5}], "number": 300}
    found = decode(b"".join(encode(message, OUTER)))
    assert found == {
        "inner": [{"name": ["ä"], "sides": [1, -5, 2**40]}, {"data": [memoryview(b"\x00" * 300)], "mean": [0.5]}],
        "number": [300],
    }


def test_unknown_fields_are_skipped_and_packed_numbers_read():
    assert decode(bytes.fromhex("38 96 01"), INNER) == {}
    assert decode(bytes.fromhex("0d00000000 09 0000000000000000 3a 01 ff")[:14], {}) == {}
    assert decode(bytes.fromhex("12 03 01 ac 02"), INNER) == {"sides": [1, 300]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("ff", "cut off inside a number"),
        ("0a 05 61", "field 1 claims 5 bytes, 1 are left"),
        ("0a ff ff ff ff ff ff ff ff 7f 61", "field 1 claims 9,223,372,036,854,775,807 bytes, 1 are left"),
        ("0b", "wire type 3 is none of a protocol buffer's"),
        ("ff" * 11, "a number is longer than ten bytes"),
        ("08 01", "name has wire type 0"),
        ("22 03 00 00 00", "mean has wire type 2"),
        ("12 01 ff", "cut off inside a number"),
    ],
)
def test_damage_is_one_line(data, said):
    with pytest.raises(UserError, match=said) as caught:
        decode(bytes.fromhex(data), INNER)
    assert str(caught.value).startswith("file: ")
