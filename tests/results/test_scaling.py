"""How long studies take on many GPUs: the model's bytes and times by hand, and what cannot be."""

import pytest

from verydeep.basics.errors import UserError
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import configuration
from verydeep.nets.families import make_on_meta
from verydeep.results.plan import plan_study
from verydeep.results.scaling import BYTES, GPUS, SHARE, STEP, Load, estimate, pays_until, step_seconds, told, words


@pytest.fixture(scope="module")
def load() -> Load:
    return Load.of(make_on_meta(NetworkConfig(configuration("D"), tuple(map(str, range(1000))))))


def test_the_load_is_the_papers_network(load: Load) -> None:
    assert (load.shared, load.own) == (14_714_688, 123_642_856)
    assert load.inputs == 25_088 + 4_096 + 4_096
    assert load.connected == 25_088 * 4_096 + 4_096 * 4_096 + 4_096 * 1_000
    assert 15.3e9 < load.convolutions < 15.4e9


def test_bytes_by_hand(load: Load) -> None:
    assert told(load, 256, 1, "data") == told(load, 256, 1, "split") == 0
    assert told(load, 256, 4, "data") == BYTES * 2 * 0.75 * 138_357_544
    assert told(load, 256, 4, "split") == BYTES * 2 * 0.75 * (14_714_688 + 256 * 33_280)
    assert told(load, 256, 64, "split") < told(load, 256, 64, "data") / 5


def test_times(load: Load) -> None:
    gpu = GPUS["h100"]
    whole = 3 * (load.convolutions + load.connected) * 256 / (gpu.macs * SHARE)
    assert step_seconds(load, 256, 1, gpu) == pytest.approx(STEP + whole)
    # Beyond a node, on the slower links, telling takes longer than what it hides behind.
    assert step_seconds(load, 256, 256, gpu) == pytest.approx(
        STEP + whole / 256 / 3 + told(load, 256, 256, "data") / gpu.beyond
    )
    ends = [pays_until(load, batch, gpu, scheme) for batch in (256, 4096) for scheme in ("data", "split")]
    assert ends[0] < ends[1]
    assert ends[0] <= ends[2], "larger batches use more"
    assert all(count <= 256 for count in ends[:2])


def test_the_papers_study() -> None:
    plan = plan_study("paper", only=["A-s256"])
    one, eight = (estimate(plan, count, GPUS["a100"]) for count in (1, 8))
    assert one.seconds[0] == one.seconds[1]
    assert one.seconds[0] / 8 < eight.seconds[0] < one.seconds[0] / 4
    rows = words(plan, 16, "a100")
    assert [row.split()[0] for row in rows[1:6]] == ["1", "8", "16", "64", "256"]
    with pytest.raises(UserError, match="--gpus 257: expected 1 to 256"):
        words(plan, 257, "a100")
    with pytest.raises(UserError, match="--gpu v100: expected one of a100"):
        words(plan, 8, "v100")
