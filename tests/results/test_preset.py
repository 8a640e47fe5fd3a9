"""Presets: complete, valid, and refused in one line where they are not."""

import re

import pytest

from verydeep.basics.errors import UserError
from verydeep.study.preset import PRESETS, known_presets, load_preset


def test_the_three_presets_are_there_and_say_how_to_run_them() -> None:
    assert known_presets() == ["demo", "paper", "small"]
    for name in known_presets():
        assert f"--preset {name}" in (PRESETS / f"{name}.toml").read_text()
        assert load_preset(name).name == name


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean small") as raised:
        load_preset("smal")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "A"', 'name = "B"', "the first is A"),
        ('"large", "jitter"', '"large", "modern"', r"which \[stages\] does not define"),
        ('stages = ["small", "jitter"]', 'stages = ["jitter"]', "must begin with small"),
        ("title =", "subtitle = 1\ntitle =", "subtitle: Extra inputs"),
        ("title =", "title", "not valid TOML"),
        ("height = 128", 'height = "high"', "data.height"),
    ],
)
def test_a_wrong_preset_is_refused_in_one_line(tmp_path, old, new, message) -> None:
    text = (PRESETS / "demo.toml").read_text()
    assert old in text
    (tmp_path / "own.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as raised:
        load_preset(str(tmp_path / "own.toml"))
    assert "own.toml" in str(raised.value)
    assert not re.search(r"\n", str(raised.value))
