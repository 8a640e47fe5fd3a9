"""Evaluation of data sets: protocols against literal loops, stop and restart, what is reused and what refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import BadImageError, UserError
from verydeep.evaluation import unfinished
from verydeep.evaluation.evaluate import Evaluator, evaluate, evenly
from verydeep.evaluation.metrics import top_k_error
from verydeep.evaluation.posteriors import Posteriors
from verydeep.images.rescale import rescale
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.nets.run_info import RunInfo

LEAST = 450_000
"""Bytes of memory that one picture finds room in."""


def _files(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def counted(monkeypatch):
    """Count the pictures that go through the network; raise KeyboardInterrupt once `stop_after` are exceeded."""
    state = {"pictures": 0, "stop_after": None}
    original = Forward.posteriors

    def posteriors(self, part, pictures):
        if state["stop_after"] is not None and state["pictures"] + len(pictures) > state["stop_after"]:
            raise KeyboardInterrupt
        state["pictures"] += len(pictures)
        return original(self, part, pictures)

    monkeypatch.setattr(Forward, "posteriors", posteriors)
    return state


def test_dense_over_scales_is_a_literal_loop(make_net, dataset, reference, reference_softmax):
    net = make_net()
    found = evaluate(net, dataset, "dense@64,80")
    for i, sample in enumerate(dataset.samples):
        posteriors = []
        for scale in (64, 80):
            picture = rescale(dataset.image(i), scale)
            for view in (picture, picture[:, ::-1]):
                posteriors.append(reference_softmax(reference(net, view).mean(axis=(1, 2))))
        assert found.ids[i] == sample.id
        assert found.labels[i] == sample.label
        np.testing.assert_allclose(found.probabilities[i], np.mean(posteriors, axis=0), atol=2e-5)


def test_crops_are_a_literal_loop_over_150_views(make_net, array_dataset, pictures, reference, reference_softmax):
    net = make_net()
    found = evaluate(net, array_dataset(pictures[:1], [3], net.classes), "crops@66,72,80")
    posteriors = []
    for scale in (66, 72, 80):
        picture = rescale(pictures[0], scale)
        for top in np.rint(np.linspace(0, picture.shape[0] - 64, 5)).astype(int):
            for left in np.rint(np.linspace(0, picture.shape[1] - 64, 5)).astype(int):
                crop = picture[top : top + 64, left : left + 64]
                for view in (crop, crop[:, ::-1]):
                    posteriors.append(reference_softmax(reference(net, view)[:, 0, 0]))
    assert len(posteriors) == 150
    np.testing.assert_allclose(found.probabilities[0], np.mean(posteriors, axis=0), atol=2e-5)


def test_center_is_one_crop_without_flip(make_net, array_dataset, rng, reference, reference_softmax):
    net = make_net()
    picture = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    found = evaluate(net, array_dataset([picture], [0], net.classes), "center@80")
    expected = reference_softmax(reference(net, picture[8:72, 18:82])[:, 0, 0])
    np.testing.assert_allclose(found.probabilities[0], expected, atol=2e-5)


def test_dense_and_crops_is_the_mean_of_the_two(make_net, dataset):
    net = make_net()
    both, dense, crops = (evaluate(net, dataset, f"{kind}@64,72") for kind in ("dense+crops", "dense", "crops"))
    np.testing.assert_allclose(both.probabilities, (dense.probabilities + crops.probabilities) / 2, atol=1e-5)
    assert np.abs(dense.probabilities - crops.probabilities).max() > 1e-3


@pytest.mark.parametrize("protocol", ["center@72", "dense@72", "crops@72"])
def test_posteriors_do_not_depend_on_memory_or_on_company(make_net, dataset, protocol):
    net = make_net()
    plenty = evaluate(net, dataset, protocol)
    for memory in (LEAST, 5_000_000):
        np.testing.assert_allclose(
            evaluate(net, dataset, protocol, memory=memory).probabilities, plenty.probabilities, atol=1e-5
        )
    alone = evaluate(net, dataset.subset([4]), protocol)
    np.testing.assert_allclose(alone.probabilities[0], plenty.probabilities[4], atol=1e-5)


def test_metadata_says_where_posteriors_come_from(make_net, dataset, tmp_path):
    net = make_net("C")
    net.provenance = RunInfo(train_scales=(64, 96))
    vd.save(net, tmp_path / "c.safetensors")
    options = Options(softmax="location")
    about = evaluate(tmp_path / "c.safetensors", dataset, "dense@64", options=options, limit=5).metadata
    assert about["protocol"] == "dense@64"
    assert about["configuration"] == "C"
    assert about["run"]["train_scales"] == [64, 96]
    assert (about["data"], about["split"]) == ("arrays", "test")
    assert about["options"] == {"softmax": "location", "pool": "mean", "pool_rounding": "up", "precision": "float32"}
    assert about["preprocessing"] == json.loads(json.dumps(net.preprocessing.to_dict()))
    assert len(about["weights_hash"]) == 64
    assert about["weights"].endswith("c.safetensors")
    assert about["limit"] == "5 images, evenly over the classes, seed 0"
    assert about["created_by"] == f"verydeep {vd.__version__}"


def test_scales_are_computed_once_and_files_are_not_computed_again(make_net, dataset, tmp_path, counted):
    net, n = make_net(), len(dataset)
    first = evaluate(net, dataset, "dense@64,80", cache=tmp_path)
    assert counted["pictures"] == 2 * n
    assert _files(tmp_path) == ["dense@64,80.parquet", "dense@64.parquet", "dense@80.parquet"]
    evaluate(net, dataset, "dense@64,72,80", cache=tmp_path)
    assert counted["pictures"] == 3 * n
    again = evaluate(net, dataset, "dense@80,64", cache=tmp_path)
    evaluate(net, dataset, "dense@72", cache=tmp_path)
    assert counted["pictures"] == 3 * n
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    assert Posteriors.read(tmp_path / "dense@64,80.parquet").metadata["protocol"] == "dense@64,80"


def test_dense_and_crops_come_from_their_files_without_the_network(make_net, dataset, tmp_path, counted):
    net = make_net()
    parts = [evaluate(net, dataset, f"{kind}@64,72", cache=tmp_path).probabilities for kind in ("dense", "crops")]
    for single in tmp_path.glob("*@??.parquet"):
        single.unlink()
    counted["stop_after"] = 0
    both = evaluate(net, dataset, "dense+crops@64,72", cache=tmp_path)
    np.testing.assert_allclose(both.probabilities, (parts[0] + parts[1]) / 2, atol=1e-5)
    assert _files(tmp_path) == [f"{kind}@64,72.parquet" for kind in ("crops", "dense+crops", "dense")]


@pytest.mark.parametrize("save_every", [0.0, 3600.0])
def test_a_stopped_evaluation_continues_and_gives_the_same(
    make_net, dataset, tmp_path, counted, monkeypatch, save_every
):
    monkeypatch.setattr(unfinished, "SECONDS_BETWEEN_SAVES", save_every)
    net, n = make_net(), len(dataset)
    whole = evaluate(net, dataset, "dense@72", memory=LEAST)
    for stop in (2, 5):
        counted.update(pictures=0 if stop == 2 else 2, stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(net, dataset, "dense@72", memory=LEAST, cache=tmp_path)
        assert _files(tmp_path) == [".dense@72.unfinished"]
    counted.update(pictures=0, stop_after=n - 5)
    continued = evaluate(net, dataset, "dense@72", memory=LEAST, cache=tmp_path)
    assert counted["pictures"] == n - 5
    np.testing.assert_array_equal(continued.probabilities, whole.probabilities)
    assert continued.ids == whole.ids
    assert _files(tmp_path) == ["dense@72.parquet"]
    on_disk = Posteriors.read(tmp_path / "dense@72.parquet")
    np.testing.assert_array_equal(on_disk.probabilities, whole.probabilities)


def test_a_process_that_dies_loses_only_what_was_not_yet_saved(make_net, dataset, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(unfinished, "SECONDS_BETWEEN_SAVES", 0.0)
    net, n = make_net(), len(dataset)
    counted["stop_after"] = 4
    with monkeypatch.context() as patch:
        saved = unfinished.Unfinished.save
        # After the fourth picture nothing is written any more: as if the process had been killed there.
        patch.setattr(unfinished.Unfinished, "save", lambda self: saved(self) if self.done.sum() < 4 else None)
        with pytest.raises(KeyboardInterrupt):
            evaluate(net, dataset, "dense@72", memory=LEAST, cache=tmp_path)
    counted.update(pictures=0, stop_after=None)
    evaluate(net, dataset, "dense@72", memory=LEAST, cache=tmp_path)
    assert counted["pictures"] == n - 3


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("other", ["weights", "options", "labels", "images", "limit"])
def test_a_folder_of_another_evaluation_is_refused_and_kept(
    make_net, dataset, array_dataset, pictures, tmp_path, counted, state, other
):
    net = make_net()
    counted["stop_after"] = 3 if state == "unfinished" else None
    try:
        evaluate(net, dataset, "dense@64", memory=LEAST, cache=tmp_path)
    except KeyboardInterrupt:
        counted["stop_after"] = None
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")}
    assert before
    labels = [sample.label for sample in dataset.samples]
    changed = {"net": net, "dataset": dataset}
    if other == "weights":
        with torch.no_grad():
            net.fc8.bias[0] += 1
    elif other == "options":
        changed["options"] = Options(pool="max")
    elif other == "labels":
        changed["dataset"] = array_dataset(pictures, [(label + 1) % 8 for label in labels], net.classes)
    elif other == "images":
        changed["dataset"] = array_dataset(pictures, labels, net.classes, [f"x{i}" for i in range(len(labels))])
    else:
        changed["limit"] = 7
    with pytest.raises(UserError, match="holds another evaluation") as caught:
        evaluate(**changed, protocol="dense@64", memory=LEAST, cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")} == before


def test_a_wordnet_id_is_the_class_whose_name_begins_with_it(make_net, array_dataset, pictures):
    net = make_net(classes=["n00000003 crane", "n00000001 tench", "n00000002 crane", "n00000009"])
    data = array_dataset(pictures[:3], [0, 1, 2], ["n00000001", "n00000002", "n00000009"])
    found = evaluate(net, data, "dense@66")
    assert [found.classes[label] for label in found.labels] == ["n00000001 tench", "n00000002 crane", "n00000009"]
    with pytest.raises(UserError, match="differ in classes"):
        evaluate(net, array_dataset(pictures[:2], [0, 1], ["n00000001", "crane"]), "dense@66")


def test_labels_are_matched_by_name_and_a_subset_of_classes_will_do(make_net, array_dataset, pictures):
    net = make_net(classes=["ant", "bee", "cat", "dog", "eel", "fox"])
    dataset = array_dataset(pictures[:4], [0, 1, 2, 0], ["fox", "bee", "dog"])
    found = evaluate(net, dataset, "center@64")
    assert [found.classes[label] for label in found.labels] == ["fox", "bee", "dog", "fox"]
    assert found.probabilities.shape == (4, 6)
    assert found.classes == net.classes


def test_classes_that_the_network_does_not_know_are_refused(make_net, array_dataset, pictures):
    dataset = array_dataset(pictures[:2], [0, 1], ["a", "zebra"])
    with pytest.raises(UserError, match=r"does not know 1 of the data set's 2 \(for example 'zebra'") as caught:
        evaluate(make_net(), dataset, "center@64")
    assert "\n" not in str(caught.value)


def test_images_without_label_are_evaluated(make_net, array_dataset, pictures):
    found = evaluate(make_net(), array_dataset(pictures[:3], [-1, 2, -1], "abcdefgh"), "dense@64")
    assert found.labels.tolist() == [-1, 2, -1]
    assert top_k_error(found, 1) in (0, 1)


def test_scales_too_small_and_empty_sets_are_refused_before_anything_is_written(make_net, dataset, tmp_path):
    net = make_net()
    for protocol, least in (("dense@32", 33), ("crops@63", 64), ("dense+crops@60,80", 64)):
        with pytest.raises(UserError, match=f"the least is {least}"):
            evaluate(net, dataset, protocol, cache=tmp_path / "new")
    with pytest.raises(UserError, match="the least is 64"):
        evaluate(net, dataset, "dense@63", options=Options(pool_rounding="down"), cache=tmp_path / "new")
    with pytest.raises(UserError, match="no images"):
        evaluate(net, dataset.subset([]), "dense@64", cache=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_image_is_named_and_the_others_are_not_lost(make_net, array_dataset, pictures, tmp_path, counted):
    net = make_net()
    damaged = array_dataset([*pictures[:6], None], [0] * 7, net.classes)
    with pytest.raises(BadImageError, match=r"006\.png"):
        evaluate(net, damaged, "dense@64", memory=LEAST, cache=tmp_path)
    done = counted["pictures"]
    assert done > 0
    repaired = array_dataset([*pictures[:6], pictures[0]], [0] * 7, net.classes)
    evaluate(net, repaired, "dense@64", memory=LEAST, cache=tmp_path)
    assert counted["pictures"] == 7


def test_the_limit_takes_classes_evenly_and_the_same_images_every_time(array_dataset, rng):
    labels = rng.permutation([0] * 50 + [1] * 20 + [2] * 3).tolist()
    dataset = array_dataset([None] * 73, labels, "abc")
    chosen = evenly(dataset, 12)
    assert chosen == evenly(dataset, 12) == sorted(set(chosen))
    assert np.bincount([labels[i] for i in chosen]).tolist() in ([5, 4, 3], [4, 5, 3])
    assert len(evenly(dataset, 10)) == 10
    assert evenly(dataset, 100) == list(range(73))
    with pytest.raises(UserError, match="at least one"):
        evenly(dataset, 0)


def test_a_limited_evaluation_is_the_same_images_of_the_whole(make_net, dataset):
    net = make_net()
    whole, some = evaluate(net, dataset, "dense@64"), evaluate(net, dataset, "dense@64", limit=4)
    assert len(some) == 4
    np.testing.assert_allclose(some.probabilities, whole.rows(some.ids).probabilities, atol=1e-5)


def test_pictures_of_one_size_share_a_batch(make_net, dataset, monkeypatch):
    net, shapes = make_net(), []
    original = net.activations
    monkeypatch.setattr(net, "activations", lambda x, *layers: shapes.append(tuple(x.shape)) or original(x, *layers))
    Evaluator(net, dataset).posteriors("dense@64")
    # Seven pictures and their flips: 70 x 90, twice, and 140 x 180 become one size, the others one each.
    assert sorted(shape[0] for shape in shapes) == [2, 2, 2, 2, 6]
    assert len({shape[2:] for shape in shapes}) == len(shapes)


def test_evaluate_and_posteriors_are_public(make_net, dataset):
    found = vd.evaluate(make_net(), dataset, vd.Protocol("center", (64,)))
    assert isinstance(found, vd.Posteriors)
    fused = vd.fuse([found, replace(found, metadata={})])
    np.testing.assert_array_equal(fused.probabilities, found.probabilities)
