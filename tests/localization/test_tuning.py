"""The threshold: the curve recomputed image by image, and the hold-out left out afterwards."""

import json

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.localization.boxes import clip, iou
from verydeep.localization.detections import held_out
from verydeep.localization.merging import MergeRule
from verydeep.localization.metrics import localization_metrics
from verydeep.localization.scoring import best_box, merge_detections
from verydeep.localization.tuning import Tuned, tune


@pytest.mark.parametrize("match", ["recommended", "literal"])
def test_the_curve_is_the_error_given_the_class_on_the_held_out_images(match, make_detections):
    detections = make_detections(60)
    tuned = tune([detections], match, 0.4)
    chosen = held_out(detections.ids, 0.4)
    assert tuned.images == len(chosen) == 24
    for threshold, error in tuned.curve:
        missed = []
        for i in chosen.tolist():
            rule = MergeRule(threshold, match)
            box, _ = best_box(detections.windows[i][:, -1], detections.scores[i][:, -1], rule)
            missed.append(iou(clip(box, *detections.sizes[i]), detections.truths[i]).max() < 0.5)
        assert error == pytest.approx(np.mean(missed))
    least = min(error for _, error in tuned.curve)
    assert (tuned.rule.threshold, least) in tuned.curve


def test_results_leave_the_held_out_images_out(make_detections):
    detections = make_detections(50)
    tuned = tune([detections])
    merged = merge_detections([detections], tuned.rule_for("boxed", "test"))
    assert localization_metrics(merged).images == 40
    # On other images it was not chosen, and they all count.
    assert localization_metrics(merge_detections([detections], tuned.rule_for("boxed", "val"))).images == 50
    assert localization_metrics(merge_detections([detections], tuned.rule_for("other", "test"))).images == 50


def test_several_parts_are_tuned_together(make_detections, rng):
    seed = int(rng.integers(2**31))
    one, two = make_detections(40, seed=seed), make_detections(40, windows=3, seed=seed)
    two = type(one)(**{**vars(two), "classes": one.classes, "labels": one.labels})
    tuned = tune([one, two], thresholds=[0.7])
    both = merge_detections([one, two], MergeRule(0.7))
    part = both.rows(held_out(both.ids, 0.2))
    assert tuned.curve[0][1] == pytest.approx(localization_metrics(part).given_class.rate)


def test_a_choice_is_written_and_read(make_detections, tmp_path):
    tuned = tune([make_detections(30)])
    tuned.write(tmp_path / "threshold.json")
    assert Tuned.read(tmp_path / "threshold.json") == tuned


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"threshold": "x", "match": "recommended", "curve": []})])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "threshold.json").write_text(text)
    with pytest.raises(UserError, match="no file of verydeep tune") as raised:
        Tuned.read(tmp_path / "threshold.json")
    assert "\n" not in str(raised.value)


def test_wrong_requests(make_detections):
    detections = make_detections(10)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(UserError, match="above 0 and below 1"):
            tune([detections], share=share)
    unlabeled = type(detections)(**{**vars(detections), "labels": np.full(10, -1)})
    with pytest.raises(UserError, match="none of the held-out images has a label and a true box"):
        tune([unlabeled])
