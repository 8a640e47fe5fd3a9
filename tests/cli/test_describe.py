import json

import pytest
import typer
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.describe import describe

app = typer.Typer()
app.command()(describe)


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def test_json_has_the_figures_of_the_specification() -> None:
    found = json.loads(run("E", "--json"))
    expected = {
        "name": "E",
        "weight_layers": 19,
        "parameters": 143_667_240,
        "conv_parameters": 20_024_384,
        "receptive_field": {"pool5": 268, "fc6": 460},
        "stride": 32,
        "score_map": [1, 1],
    }
    assert {key: found[key] for key in expected} == expected
    assert round(found["macs"] / 1e9, 3) == 19.632


def test_example_of_the_help() -> None:
    text = run("D", "--image-size", "384")
    assert "138,357,544 parameters" in text
    assert "score map: 6 x 6 cells" in text


def test_window_of_a_cell() -> None:
    found = json.loads(run("D", "--image-size", "256x341", "--cell", "1,4", "--json"))
    assert found["score_map"] == [2, 5]  # 341 / 32 rounded up
    assert found["cell"]["window"] == {"top": 32, "left": 128, "bottom": 256, "right": 352}


def test_tables_1_and_2_and_the_argument_for_3x3() -> None:
    text = run("--all")
    assert ["133", "133", "133", "134", "138", "144", "135"] in [line.split() for line in text.splitlines()]
    assert "27C^2" in text
    assert "49C^2" in text
    assert len(json.loads(run("--all", "--json"))) == 7


def test_weights_file(tmp_path: object) -> None:
    path = f"{tmp_path}/n.safetensors"
    vd.save(vd.create("B", classes=7, width=1 / 16, image_size=64, fc_width=8), path)
    found = json.loads(run(path, "--json"))
    assert (found["name"], found["classes"], found["window"], found["image_size"]) == ("B", 7, 64, [64, 64])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "which network"),
        (("D", "--image-size", "100"), "least side is 193"),
        (("D", "--cell", "1,0"), "1 x 1 cells"),
        (("D", "--cell", "a"), "--cell a: expected"),
        (("none.safetensors",), "no such weights file"),
    ],
)
def test_wrong_requests(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(*words)
