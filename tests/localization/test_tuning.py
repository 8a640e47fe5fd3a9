"""The threshold: the curve recomputed image by image, and the hold-out left out afterwards."""

import json

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.localization.boxes import clip, iou
from verydeep.localization.guesses import held_out
from verydeep.localization.merging import MergeRule
from verydeep.localization.metrics import localization_metrics
from verydeep.localization.scoring import best_box, merge_guesses
from verydeep.localization.tuning import Tuned, tune


@pytest.mark.parametrize("match", ["recommended", "literal"])
def test_the_curve_is_the_error_given_the_class_on_the_held_out_images(match, make_guesses):
    guesses = make_guesses(60)
    tuned = tune([guesses], match, 0.4)
    chosen = held_out(guesses.ids, 0.4)
    assert tuned.images == len(chosen) == 24
    for threshold, error in tuned.curve:
        missed = []
        for i in chosen.tolist():
            rule = MergeRule(threshold, match)
            box, _ = best_box(guesses.windows[i][:, -1], guesses.scores[i][:, -1], rule)
            missed.append(iou(clip(box, *guesses.sizes[i]), guesses.truths[i]).max() < 0.5)
        assert error == pytest.approx(np.mean(missed))
    least = min(error for _, error in tuned.curve)
    assert (tuned.rule.threshold, least) in tuned.curve


def test_results_leave_the_held_out_images_out(make_guesses):
    guesses = make_guesses(50)
    tuned = tune([guesses])
    merged = merge_guesses([guesses], tuned.rule_for("boxed", "test"))
    assert localization_metrics(merged).images == 40
    # On other images it was not chosen, and they all count.
    assert localization_metrics(merge_guesses([guesses], tuned.rule_for("boxed", "val"))).images == 50
    assert localization_metrics(merge_guesses([guesses], tuned.rule_for("other", "test"))).images == 50


def test_several_parts_are_tuned_together(make_guesses, rng):
    seed = int(rng.integers(2**31))
    one, two = make_guesses(40, seed=seed), make_guesses(40, windows=3, seed=seed)
    two = type(one)(**{**vars(two), "classes": one.classes, "labels": one.labels})
    tuned = tune([one, two], thresholds=[0.7])
    both = merge_guesses([one, two], MergeRule(0.7))
    part = both.rows(held_out(both.ids, 0.2))
    assert tuned.curve[0][1] == pytest.approx(localization_metrics(part).given_class.rate)


def test_a_choice_is_written_and_read(make_guesses, tmp_path):
    tuned = tune([make_guesses(30)])
    tuned.write(tmp_path / "threshold.json")
    assert Tuned.read(tmp_path / "threshold.json") == tuned


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"threshold": "x", "match": "recommended", "curve": []})])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "threshold.json").write_text(text)
    with pytest.raises(UserError, match="no file of verydeep localize tune") as raised:
        Tuned.read(tmp_path / "threshold.json")
    assert "\n" not in str(raised.value)


def test_wrong_requests(make_guesses):
    guesses = make_guesses(10)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(UserError, match="above 0 and below 1"):
            tune([guesses], share=share)
    unlabeled = type(guesses)(**{**vars(guesses), "labels": np.full(10, -1)})
    with pytest.raises(UserError, match="none of the held-out images has a label and a true box"):
        tune([unlabeled])
