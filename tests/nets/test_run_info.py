"""What is known of a run: there and back, as earlier versions wrote it, and refused where it is damaged."""

import json
from pathlib import Path

import pytest

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.evaluation.parquet import read_metadata
from verydeep.nets.run_info import RunInfo

FILES = Path(__file__).parent.parent / "golden" / "files"


def test_it_comes_back_from_json_whole_and_says_its_version(rng) -> None:
    made = RunInfo(
        data="pets",
        train_scales=(36, int(rng.integers(36, 99))),
        seed=0,
        trained_layers="fc",
        epochs=int(rng.integers(9)),
        best_constant_box=tuple(rng.random(4).tolist()),
        untrained_layers=("fc6",),
        multi_label=False,
        more={"transfer": {"C": 0.1}},
    )
    values = json.loads(json.dumps(made.to_dict()))
    assert RunInfo.from_dict(values) == made
    assert values["version"] == 1
    assert values["transfer"] == {"C": 0.1}
    assert {"recipe", "format"}.isdisjoint(values)  # what is not known is not there


def test_files_of_earlier_versions_say_the_same() -> None:
    run = vd.load(FILES / "runs" / "finished" / "best.safetensors").provenance
    assert (run.net, run.train_scales, run.recipe, run.seed, run.epochs) == ("A", (33, 40), "paper-s256", 0, 2)
    transfer = vd.load(FILES / "weights" / "transfer.safetensors").provenance
    assert (transfer.recipe, transfer.multi_label, transfer.more["transfer"]["C"]) == ("transfer", False, 1.0)
    posteriors = read_metadata(FILES / "study" / "out" / "posteriors" / "A-s36" / "dense@32.parquet")
    assert RunInfo.of_test(posteriors) == RunInfo(train_scales=(36, 36), recipe="small", trained_layers="all")
    boxes = RunInfo.of_test(read_metadata(FILES / "study" / "out" / "boxes" / "A-s36-scr-fc" / "center@40.parquet"))
    assert boxes.trained_layers == "fc"
    assert boxes.best_constant_box == pytest.approx((0.1579, 0.2903, 0.8730, 0.7564), abs=1e-4)


def test_a_fusion_has_what_its_members_share() -> None:
    runs = [RunInfo(train_scales=(36, 48), seed=seed, recipe="small") for seed in (1, 2)]
    about = {"fused": [{"run": run.to_dict()} for run in runs]}
    assert RunInfo.of_test(about) == RunInfo(train_scales=(36, 48), recipe="small")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (5, "provenance is 5, expected a table"),
        ({"version": 2}, "provenance of version 2, this version of verydeep reads 1"),
        ({"train_scales": [36]}, "train_scales is .*, expected two whole numbers"),
        ({"train_scales": [36, 4.5]}, "train_scales is .*, expected two whole numbers"),
        ({"best_constant_box": "left"}, "best_constant_box is 'left', expected four numbers"),
        ({"untrained_layers": [6]}, "expected names of layers"),
        ({"epochs": True}, "epochs is True, expected a whole number"),
        ({"multi_label": 1}, "multi_label is 1, expected true or false"),
        ({"recipe": ["a"]}, "recipe is .*, expected a text"),
    ],
)
def test_damage_is_named(values: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunInfo.from_dict(values)
