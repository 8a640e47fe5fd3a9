"""The benchmark of the service: every answer is checked, figures hold together, what is missing is named."""

import pytest

from benchmarks import serving
from verydeep.basics.errors import UserError, WorkError

pytest.importorskip("fastapi", reason="fastapi is not installed (make test installs it)")


def test_figures_hold_together(monkeypatch):
    monkeypatch.setattr(serving, "is_installed", lambda name: False)
    result = serving.run("A", clients=3, requests=6, repeats=1, width=1 / 32)
    bare, service = result["rows"]
    assert (bare["server"], service["server"]) == ("bare engine", "verydeep")
    assert bare["ratio"] == 1
    assert service["ratio"] == pytest.approx(service["images_per_second"] / bare["images_per_second"])
    assert 0 < service["p50"] <= service["p99"]
    assert set(result["missing"]) == {"litserve", "bentoml"}
    assert "not measured: bentoml" in serving.text(result)


def test_a_wrong_answer_is_no_answer():
    load = serving.Load(clients=1, requests=2, repeats=1)
    for said in (("7", 0.5), ("8", 0.3)):
        with pytest.raises(WorkError, match="engine says 7"):
            serving._round(lambda file, said=said: (said[0], said[1] + 0.1), [b""], [("7", 0.5)], load)


def test_numbers_that_make_no_benchmark():
    with pytest.raises(UserError, match="clients 0"):
        serving.run(clients=0)
