"""What a rebuilding must not change: see README.md beside this file."""

import pytest

from tests.golden import cases, comparing


@pytest.mark.parametrize("name", cases.CASES)
def test_what_is_computed_is_what_was(name: str) -> None:
    try:
        values = cases.run(name)
    except cases.NotHereError as error:
        pytest.skip(str(error))
    found = list(comparing.differences(comparing.read(name), values))
    bad = [one for one in found if one.size > comparing.tolerance(cases.CASES[name].tolerance)]
    assert not bad, "\n".join(f"{one.place}: {one.words}" for one in bad[:10])
