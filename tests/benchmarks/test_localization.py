"""The benchmark of localization: its ways give the same boxes, its counts are those of the layers, its help is true."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import commands as bench
from benchmarks import localization
from benchmarks.dense import photograph
from verydeep.basics.errors import UserError
from verydeep.nets.geometry import macs


@pytest.fixture(scope="module")
def pairs():
    return {same: localization._pair(1 / 32, torch.device("cpu"), same) for same in (True, False)}


def test_windows_are_those_of_the_map_each_by_itself(pairs):
    pair, picture = pairs[True], photograph(288).numpy()
    found = localization._windows(pair, picture, 4)
    assert found.shape == localization._dense(pair, picture).shape == (3, 3, 1000, 4)
    for i, j in ((0, 0), (1, 2), (2, 1)):
        alone = pair.maps([np.ascontiguousarray(picture[32 * i : 32 * i + 224, 32 * j : 32 * j + 224])])[1][0, 0, 0]
        np.testing.assert_allclose(found[i, j], alone, rtol=1e-3, atol=1e-5)


def test_multiply_adds_are_counted_network_by_network(pairs):
    pair = pairs[False]
    nets = pair.classifier.net, pair.localizer.net
    for way, side, windows in (("dense", 320, 1), ("windows", 224, 16)):
        separate = localization.multiply_adds(pair, 320, way, "separate")
        assert separate == windows * sum(macs(net, side, side) for net in nets)
        shared = localization.multiply_adds(pair, 320, way, "shared")
        trunk = separate - shared
        assert 0 < trunk < separate / 2


def test_the_example_of_the_help_runs():
    (example,) = [line for line in bench.localization.__doc__.splitlines() if "Example:" in line]
    result = CliRunner().invoke(bench.app, [*example.split()[3:], "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["windows"] == 36
    assert found["boxes"] == 500
    seconds = {(row["way"], row["convolutions"]): row["seconds"] for row in found["rows"]}
    assert found["ratio"] == pytest.approx(seconds["windows", "shared"] / seconds["dense", "shared"])
    assert found["multiply_add_ratio"] > 1
    assert len(found["merge_seconds"]) == 3


@pytest.mark.parametrize("words", [{"side": 300}, {"side": 192}, {"repeats": 0}, {"boxes": 1}])
def test_wrong_requests(words):
    with pytest.raises(UserError, match="are needed"):
        localization.run(**words)
