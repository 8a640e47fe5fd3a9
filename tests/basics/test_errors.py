"""Errors are one line of text, whatever names they quote."""

import pickle

from verydeep.basics.errors import BadBoxError, BadImageError, UserError


def test_an_error_is_one_printable_line() -> None:
    hostile = "a\nb\x0bc\x1b[2J\u2028d\u202ee\ud800"
    for error in (UserError(hostile), BadImageError("x.png", hostile), BadBoxError("x.xml", hostile, "x.png")):
        said = str(error)
        assert len(said.splitlines()) == 1
        assert said.isprintable(), ascii(said)
        assert "\\x1b[2J" in said
        assert str(pickle.loads(pickle.dumps(error))) == said
    assert str(UserError("two  spaces/é.png: no such file")) == "two  spaces/é.png: no such file"
