import pytest

from verydeep.basics.errors import UserError
from verydeep.checkpoints.prototxt import parse, render


def test_what_caffes_files_hold():
    text = """
    name: 'VGG "16"'  # a comment { with a brace
    input_dim: 10 input_dim: 3;
    layers { bottom: "data" type: CONVOLUTION, blobs_lr: 1e-2
      convolution_param: { pad: 1 bias_term: false weight_filler { std: -.5 } } }
    layers {}
    """
    assert parse(text, "x") == {
        "name": ['VGG "16"'],
        "input_dim": [10, 3],
        "layers": [
            {
                "bottom": ["data"],
                "type": ["CONVOLUTION"],
                "blobs_lr": [0.01],
                "convolution_param": [{"pad": [1], "bias_term": [False], "weight_filler": [{"std": [-0.5]}]}],
            },
            {},
        ],
    }


def test_what_is_rendered_is_parsed():
    message = {"name": "x", "layer": [{"name": "a", "param": {"dim": [1, 2], "k": 0.5}}, {"name": "b"}]}
    expected = {
        "name": ["x"],
        "layer": [{"name": ["a"], "param": [{"dim": [1, 2], "k": [0.5]}]}, {"name": ["b"]}],
    }
    assert parse(render(message), "x") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer {\n\n name: }", "x: line 3 is no prototxt: '}'"),
        ("layer {", "x: ends inside a message"),
        ("name:", "x: ends inside a message"),
        ("}", "x: line 1"),
        ("name 3", "x: line 1"),
        ("name: name: 3", "x: line 1"),
        ("a { " * 100_000, "x: ends inside a message"),
        ('name: "open', "x: line 1"),
        ("\x00", "x: line 1"),
    ],
)
def test_damage_is_one_line(text, said):
    with pytest.raises(UserError, match=said):
        parse(text, "x")
