"""Boxes of a data set: the same as picture by picture; kept, refused and put together as they should be."""

from dataclasses import replace

import numpy as np
import pytest

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.datasets.boxes import with_boxes
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.localization.boxes import as_array
from verydeep.localization.detections import Detections
from verydeep.localization.evaluate import BoxEvaluator
from verydeep.localization.localize import Localizer
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import merge_detections
from verydeep.nets.run_info import RunInfo

CPU = Runtime("cpu")
RULE = MergeRule(0.6)


@pytest.fixture
def files(make_pair, tmp_path):
    classifier, localizer = make_pair(same_trunk=False)
    localizer.provenance = RunInfo(train_scales=(72, 72), best_constant_box=(0.1, 0.1, 0.9, 0.9))
    paths = tmp_path / "classifier.safetensors", tmp_path / "localizer.safetensors"
    for net, path in zip((classifier, localizer), paths, strict=True):
        vd.save(net, path)
    return paths


def _posteriors(boxed, rng):
    ids = tuple(sample.id for sample in boxed.samples)
    labels = np.array([sample.label for sample in boxed.samples])
    probabilities = rng.dirichlet(np.ones(8), len(ids)).astype(np.float32)
    return Posteriors(ids[::-1], labels[::-1], probabilities, boxed.classes, {"protocol": "dense@72"})


@pytest.mark.parametrize("protocol", ["center@72", "dense@96", "dense@72,100", "crops@80"])
def test_detections_are_those_of_each_picture_by_itself(files, boxed, protocol):
    evaluator = BoxEvaluator(*files, boxed, runtime=CPU)
    found = evaluator.detections(protocol, RULE)
    alone = Localizer(*files, protocol, top=5, rule=RULE, runtime=CPU)
    assert found.ids == tuple(sample.id for sample in boxed.samples)
    for i, sample in enumerate(boxed.samples):
        expected = alone(boxed.image(i)).top
        assert [found.names[k] for k in found.classes[i, :-1]] == [guess.name for guess in expected]
        np.testing.assert_allclose(found.boxes[i, :-1], [guess.box for guess in expected], atol=1e-2)
        np.testing.assert_allclose(found.posteriors[i, :-1], [g.posterior for g in expected], rtol=1e-4)
        np.testing.assert_allclose(found.ratings[i, :-1], [g.rating for g in expected], rtol=1e-3)
        assert found.classes[i, -1] == sample.label
        np.testing.assert_array_equal(found.truths[i], as_array(sample.boxes))
        assert found.sizes[i].tolist() == list(boxed.size(i))


def test_what_is_there_is_not_done_again(files, boxed, rng, tmp_path, monkeypatch):
    cache = tmp_path / "boxes"
    how = {"posteriors": _posteriors(boxed, rng), "runtime": CPU, "cache": cache}
    first = BoxEvaluator(*files, boxed, **how).detections("dense@72,96", RULE)
    assert sorted(path.name for path in cache.iterdir()) == [
        "dense@72,96.parquet",
        "dense@72.parquet",
        "dense@96.parquet",
    ]
    assert Detections.read(cache / "dense@72,96.parquet").metadata["protocol"] == "dense@72,96"
    monkeypatch.setattr(BoxEvaluator, "_windows", None)  # no network runs from here on
    evaluator = BoxEvaluator(*files, boxed, **how)
    np.testing.assert_array_equal(evaluator.detections("dense@72,96", RULE).boxes, first.boxes)
    # Another rule merges the same windows anew.
    other = evaluator.detections("dense@72,96", MergeRule(-1.0))
    np.testing.assert_array_equal(other.boxes, merge_detections([first], MergeRule(-1.0)).boxes)
    assert not np.array_equal(other.boxes, evaluator.detections("dense@72,96", MergeRule(100.0)).boxes)  # none, and all
    (cache / "dense@72,96.parquet").unlink()
    np.testing.assert_array_equal(evaluator.detections("dense@72,96", RULE).boxes, first.boxes)


def test_several_scales_by_their_files_are_the_windows_of_all(files, boxed, rng, tmp_path):
    posteriors = _posteriors(boxed, rng)
    plain = BoxEvaluator(*files, boxed, posteriors=posteriors, runtime=CPU).detections("dense@72,100", RULE)
    kept = BoxEvaluator(*files, boxed, posteriors=posteriors, runtime=CPU, cache=tmp_path).detections(
        "dense@72,100", RULE
    )
    np.testing.assert_array_equal(kept.boxes, plain.boxes)
    for one, two in zip(kept.windows, plain.windows, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_file_of_one_scale_keeps_its_rule_when_several_use_it(files, boxed, rng, tmp_path):
    evaluator = BoxEvaluator(*files, boxed, posteriors=_posteriors(boxed, rng), runtime=CPU, cache=tmp_path)
    evaluator.detections("dense@72", MergeRule(0.25))
    before = (tmp_path / "dense@72.parquet").read_bytes()
    several = evaluator.detections("dense@72,96", MergeRule(0.75))
    assert (several.metadata["merging"]["threshold"], several.metadata["protocol"]) == (0.75, "dense@72,96")
    assert (tmp_path / "dense@72.parquet").read_bytes() == before
    assert not Detections.read(tmp_path / "dense@96.parquet").metadata.get("merging")


def test_classes_are_those_of_given_posteriors(files, boxed, rng):
    posteriors = _posteriors(boxed, rng)
    found = BoxEvaluator(*files, boxed, posteriors=posteriors, runtime=CPU).detections("center@72", RULE)
    rows = posteriors.rows(found.ids).probabilities
    np.testing.assert_array_equal(found.classes[:, :5], np.argsort(-rows, axis=1)[:, :5])


def test_what_does_not_fit_is_refused(files, boxed, rng, tmp_path):
    how = {"runtime": CPU, "cache": tmp_path / "boxes"}
    evaluator = BoxEvaluator(*files, boxed, **how)
    for text, said in (("dense+crops@72", "boxes come from"), ("dense@32", "32")):
        with pytest.raises(UserError, match=said):
            evaluator.check(Protocol.parse(text))
    evaluator.detections("center@72", RULE)
    with pytest.raises(UserError, match="holds other boxes: labels_from"):
        BoxEvaluator(*files, boxed, posteriors=_posteriors(boxed, rng), **how).detections("center@72", RULE)
    with pytest.raises(UserError, match="holds boxes of other images"):
        BoxEvaluator(*files, boxed.subset(range(5)), **how).detections("center@72", RULE)
    few = _posteriors(boxed.subset(range(4)), rng)
    with pytest.raises(UserError, match="posteriors: without 5 of the 9 images"):
        BoxEvaluator(*files, boxed, posteriors=few, runtime=CPU).detections("center@72", RULE)
    with pytest.raises(UserError, match=r"localizer\.safetensors"):
        BoxEvaluator(files[1], files[0], boxed, runtime=CPU)


def test_bad_boxes_are_named_or_left_out(files, boxed):
    _, width = boxed.size(2)
    box = replace(boxed.samples[2].boxes[0], xmax=width + 30.0, xmin=0.0)
    boxed.samples[2] = replace(boxed.samples[2], boxes=(box,))
    with pytest.raises(UserError, match=r"boxed/2\.png: its box with edges 0 .* reaches out of the image"):
        with_boxes(boxed, False)
    assert len(BoxEvaluator(*files, with_boxes(boxed, True)[0], runtime=CPU).dataset) == 8
    bare = boxed.subset(range(9))
    bare.samples = [replace(sample, boxes=()) for sample in boxed.samples]
    with pytest.raises(UserError, match="none of 9 images has a box, so there is nothing to localize"):
        with_boxes(bare, False)
