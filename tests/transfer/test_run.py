"""Whole transfers on pictures that are easily told apart: what is written, what is refused, what the figures are."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.lock import sole_writer
from verydeep.datasets.opening import Reading
from verydeep.evaluation.metrics import mean_class_recall
from verydeep.inference.average_precision import average_precision
from verydeep.nets.families import with_random_weights
from verydeep.transfer.data import read_data
from verydeep.transfer.elementary import LayerDescriptor, network_hash
from verydeep.transfer.protocols import PROTOCOLS
from verydeep.transfer.report import _confusions
from verydeep.transfer.run import transfer
from verydeep.transfer.work import Settings

SKIP = Reading(on_bad_image="skip")
SETTINGS = Settings(scales=(64, 96))


def accuracy_of(path, data, protocol=None):
    found = vd.evaluate(path, vd.open_dataset(data, "test"), protocol)
    return mean_class_recall(found.labels, found.probabilities.argmax(axis=1), len(found.classes))


def test_a_folder_becomes_a_network_that_knows_its_classes(colors, wide, tmp_path):
    out = tmp_path / "out"
    result = transfer([wide], str(colors), "folder", out, SETTINGS)
    split = result["systems"][0]["splits"][0]
    assert (split["train"], split["validation"], split["test"]) == (31, 8, 9)
    assert split["merit"] > 0.8
    assert {file.name for file in out.iterdir()} == {
        "result.json",
        "report.html",
        "classifier.safetensors",
        "posteriors-1.parquet",
        "splits.json",
    }
    # The test images of evaluate are those of the transfer, and none of them was trained on.
    test = {sample.id for sample in vd.open_dataset(colors, "test").samples}
    lists = json.loads((out / "splits.json").read_text())[0]
    assert set(lists["test"]) == test
    assert not test.intersection(lists["train"] + lists["validation"])
    assert accuracy_of(out / "classifier.safetensors", colors) == pytest.approx(result["deployed"][0]["merit"])
    net = vd.load(out / "classifier.safetensors")
    assert net.classes == ("blue", "green", "red")
    assert net.provenance.more["transfer"]["C"] == result["deployed"][0]["C"]
    guess = vd.predict(net, colors / "red" / "00.png").top[0]
    assert guess[0] == "red"
    posteriors = vd.Posteriors.read(out / "posteriors-1.parquet")
    assert set(posteriors.ids) == test
    assert (posteriors.probabilities.argmax(axis=1) == posteriors.labels).mean() == pytest.approx(split["accuracy"])
    assert result["imbalance"] == {"least": ["red", 10], "most": ["blue", 16], "weighted": True}


def test_a_finished_transfer_is_read_and_another_is_refused(colors, weights, tmp_path, monkeypatch):
    first = transfer([weights], str(colors), "folder", tmp_path / "out", SETTINGS)
    monkeypatch.setattr(LayerDescriptor, "rows", lambda *args: pytest.fail("computed again"))
    assert transfer([weights], str(colors), "folder", tmp_path / "out", SETTINGS) == first
    assert transfer([weights], str(colors), "folder", tmp_path / "stack", Settings(scales=(64, 96), aggregate="stack"))
    with pytest.raises(UserError, match=r"holds another transfer \(normalize is l2 there, none here\)"):
        transfer([weights], str(colors), "folder", tmp_path / "out", Settings(scales=(64, 96), normalize="none"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("")
    with pytest.raises(UserError, match="holds no transfer"):
        transfer([weights], str(colors), "folder", tmp_path / "run", SETTINGS)


def test_the_report_holds_what_was_promised(colors, weights, tmp_path):
    transfer([weights], str(colors), "folder", tmp_path / "out", SETTINGS)
    page = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "mean class recall",
        "Nearest neighbors",
        "Recall of each class",
        "Confusion",
        "posteriors honest",
        "t-SNE",
        "classifier.safetensors",
        "to 16 (blue) training images a class; all classes count the same",
    ):
        assert words in page
    assert page.count("<img") > 40
    assert "src='http" not in page


def test_confusions_are_named_the_most_frequent_first():
    table = _confusions(np.array([[1, 2, 1], [1, 1, 0], [0, 0, 5]]), ("sea_horse", "<b>", "cup"))
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", table)
    assert sorted(rows[:2]) == [("&lt;b&gt;", "sea horse", "50% (1 of 2)"), ("sea horse", "&lt;b&gt;", "50% (2 of 4)")]
    assert rows[2:] == [("sea horse", "cup", "25% (1 of 4)")]
    assert _confusions(np.diag([4, 2, 5]), ("a", "b", "c")) == ""


def test_two_networks_stack_and_each_is_deployed(colors, weights, make_net, tmp_path):
    vd.save(make_net("B", fc_width=16), tmp_path / "b.safetensors")
    result = transfer([weights, tmp_path / "b.safetensors"], str(colors), "folder", tmp_path / "out", SETTINGS)
    assert result["systems"][0]["width"] == 24 + 16
    assert result["name"].startswith("A & B, fc7.relu@64,96")
    assert [made["file"] for made in result["deployed"]] == ["classifier-1.safetensors", "classifier-2.safetensors"]
    assert vd.load(tmp_path / "out" / "classifier-2.safetensors").configuration.name == "B"


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_folds_test_every_image_once(colors, weights, tmp_path, classifier):
    result = transfer(
        [weights], str(colors), "folder", tmp_path / "out", Settings(scales=(64,), folds=3, classifier=classifier)
    )
    splits = result["systems"][0]["splits"]
    assert sum(split["test"] for split in splits) == 48
    assert result["systems"][0]["merit"] == pytest.approx(np.mean([split["merit"] for split in splits]))
    assert result["systems"][0]["std"] == pytest.approx(np.std([split["merit"] for split in splits], ddof=1))
    tested = [vd.Posteriors.read(tmp_path / "out" / f"posteriors-{i}.parquet").ids for i in (1, 2, 3)]
    assert len({name for ids in tested for name in ids}) == 48


@pytest.mark.parametrize("baseline", ["random", "pixels", "hog"])
def test_baselines_need_no_trained_network(colors, weights, tmp_path, baseline):
    if baseline == "hog":
        pytest.importorskip("skimage", reason="the gradient histograms need scikit-image")
    result = transfer(
        [weights] if baseline == "random" else [],
        str(colors),
        "folder",
        tmp_path / "out",
        Settings(scales=(64,), baseline=baseline),
    )
    assert result["systems"][0]["width"] == {"random": 24, "pixels": 3072, "hog": 1764}[baseline]
    assert result["deployed"] == []
    if baseline == "pixels":  # the gradients of noise have no color, and of 24 random numbers few may see it
        assert result["systems"][0]["merit"] > 0.8
    if baseline == "random":
        assert result["identity"]["weights_hash"] == [
            network_hash(with_random_weights(vd.load(weights).config, "he", 0))
        ]


def test_random_weights_differ_in_nothing_but_the_weights(make_net):
    net = make_net("B", batch_norm=True)
    other = with_random_weights(net.config, "he", 0)
    assert other.preprocessing == net.preprocessing
    assert {name: value.shape for name, value in other.state_dict().items()} == {
        name: value.shape for name, value in net.state_dict().items()
    }
    assert not torch.equal(other.fc7.weight, net.fc7.weight)


def test_a_network_trained_on_the_same_images_stands_beside(colors, weights, tmp_path):
    transfer([weights], str(colors), "folder", tmp_path / "out", SETTINGS)
    tuned = tmp_path / "out" / "classifier.safetensors"
    result = transfer([weights], str(colors), "folder", tmp_path / "both", SETTINGS, compare=tuned)
    assert result["compared"]["merit"] == pytest.approx(accuracy_of(tuned, colors))
    with pytest.raises(UserError, match="--compare: only with --protocol folder"):
        transfer([weights], str(colors), "folder", tmp_path / "f", Settings(scales=(64,), folds=3), compare=tuned)


def test_duplicates_and_damaged_images_are_reported(colors, weights, tmp_path):
    test = vd.open_dataset(colors, "test").samples
    train = vd.open_dataset(colors, "train").samples
    shutil.copy(colors / train[0].id, colors / test[0].id)
    result = transfer([weights], str(colors), "folder", tmp_path / "out", Settings(scales=(64,)))
    assert result["duplicates"] == [
        {"split": "hold-out", "test_images": 1, "examples": [[test[0].id, train[0].id]]},
    ]
    assert "byte for byte" in (tmp_path / "out" / "report.html").read_text()
    (colors / train[1].id).write_bytes(b"no picture")
    with pytest.raises(BadImageError, match=train[1].id):
        transfer([weights], str(colors), "folder", tmp_path / "bad", Settings(scales=(64,)))
    assert not (tmp_path / "bad").exists()
    result = transfer([weights], str(colors), "folder", tmp_path / "skip", Settings(scales=(64,)), reading=SKIP)
    assert [train[1].id in line for line in result["left_out"]] == [True]


@pytest.fixture
def voc(tmp_path, rng):
    """Pictures with a blue and a red half, or one of them; people who are blue or red."""

    def picture(colors):
        pixels = rng.integers(0, 100, (70, 100, 3), dtype=np.uint8)
        for side, color in enumerate(colors):
            pixels[:, 50 * side : 50 * side + 50, color] += 150
        return Image.fromarray(pixels)

    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    for folder in ("Main", "Action"):
        (root / "ImageSets" / folder).mkdir(parents=True)
    lines = {}
    for i in range(48):
        colors = [(2, 2), (0, 0), (2, 0), (1, 1)][i % 4]
        name, split = f"{i:04d}", ("train", "train", "val")[i // 4 % 3]
        picture(colors).save(root / "JPEGImages" / f"{name}.jpg")
        box = "<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>70</ymax></bndbox></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{box}</annotation>")
        for label, color in (("blue", 2), ("red", 0)):
            lines.setdefault(("Main", label, split), []).append(f"{name} {1 if color in colors else -1}")
            lines.setdefault(("Action", label, split), []).append(f"{name} 1 {1 if color == colors[0] else -1}")
    for (folder, label, split), rows in lines.items():
        (root / "ImageSets" / folder / f"{label}_{split}.txt").write_text("\n".join(rows))
    return tmp_path / "VOCdevkit"


def test_voc_is_scored_by_average_precision_of_each_class(voc, weights, tmp_path):
    result = transfer([weights], str(voc), "voc2012", tmp_path / "out", SETTINGS)
    split = result["systems"][0]["splits"][0]
    assert (split["train"], split["validation"], split["test"]) == (26, 6, 16)
    assert split["name"] == "val (test labels are withheld)"
    assert split["merit"] == split["map_all_points"] > 0.8
    assert split["map_all_points"] == pytest.approx(np.mean(split["ap_all_points"]))
    assert 0 < split["map_11_point"] <= 1
    net = vd.load(tmp_path / "out" / "classifier.safetensors")
    assert net.classes == ("blue", "red")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Average precision of each class" in page
    assert "Are the posteriors honest?" in page
    picture = read_data(str(voc), PROTOCOLS["voc2012"], Reading()).dataset.image(2)  # a blue and a red half
    found = vd.predict(net, picture)
    assert str(found.protocol) == "descriptor@64,96"
    assert min(found.posterior) > 0.4  # both at once: no soft-max
    assert np.nanmin(vd.score_map(picture, net).levels[0].values.sum(axis=0)) != pytest.approx(1)
    whole = read_data(str(voc), PROTOCOLS["voc2012"], Reading())
    test = whole.own["val"].tolist()
    guesses = np.stack([vd.predict(net, whole.dataset.image(i)).posterior for i in test])
    found = [average_precision(whole.targets[test][:, k], guesses[:, k], False) for k in range(2)]
    assert found == pytest.approx(split["ap_all_points"])
    with pytest.raises(UserError, match="may have several classes, scenes is read with one each"):
        vd.evaluate(net, vd.open_dataset("scenes", "test"), "dense@64")


def test_actions_use_the_picture_and_the_person(voc, weights, tmp_path):
    result = transfer([weights], str(voc), "voc2012-action", tmp_path / "out", SETTINGS)
    image, both = result["systems"]
    assert (image["shown"], both["shown"]) == ("image", "image + person box")
    assert both["width"] == 2 * image["width"]
    assert both["merit"] > 0.8  # the action is the color of the box
    assert result["deployed"] == []
    assert "persons' boxes takes two descriptors" in result["no_network"]
    found = read_data(str(voc), PROTOCOLS["voc2012-action"], Reading())
    assert found.boxes is not None
    assert found.boxes.size(0) == (70, 50)


@pytest.mark.parametrize(
    ("protocol", "settings", "said"),
    [
        ("caltech101", SETTINGS, "class blue: has 20 images, the protocol caltech101 needs 30"),
        ("voc2007", SETTINGS, "no VOC2007"),
        ("imagenet", SETTINGS, "expected one of caltech101"),
        ("caltech101", Settings(scales=(64,), folds=3), "folds are for --protocol folder"),
        ("folder", Settings(scales=(20,)), "scale 20 is too small"),
        ("folder", Settings(layer="fc9"), "no layer 'fc9'"),
    ],
)
def test_wrong_requests_leave_nothing_behind(colors, weights, tmp_path, protocol, settings, said):
    with pytest.raises(UserError, match=said):
        transfer([weights], str(colors), protocol, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_wrong_settings_are_refused_at_once(colors, tmp_path):
    for choice, said in (
        ({"classifier": "tree"}, "expected svm or logistic"),
        ({"baseline": "sift"}, "expected one of random"),
        ({"aggregate": "sum"}, "aggregate is 'sum'"),
    ):
        with pytest.raises(UserError, match=said):
            Settings(**choice)
    with pytest.raises(UserError, match="a network is needed"):
        transfer([], str(colors), "folder", tmp_path / "out", Settings())
    (tmp_path / "one").mkdir()
    shutil.copytree(colors / "red", tmp_path / "one" / "red")
    with pytest.raises(UserError, match="one class only"):
        transfer([], str(tmp_path / "one"), "folder", tmp_path / "out", Settings(baseline="pixels"))


def test_a_folder_that_another_process_works_in_is_refused(colors, wide, tmp_path):
    with sole_writer(tmp_path / "out"), pytest.raises(UserError, match="is at work in it"):
        transfer([wide], str(colors), "folder", tmp_path / "out", SETTINGS)


def test_names_of_classes_and_files_are_text_in_the_report(colors, weights, tmp_path):
    hostile = "<script>$\\x$ \x1b[2J‮'\""
    shutil.copytree(colors, tmp_path / "data")
    (tmp_path / "data" / "red").rename(tmp_path / "data" / hostile)
    transfer([weights], str(tmp_path / "data"), "folder", tmp_path / "out", SETTINGS)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>$" not in page
    assert not {"\x1b", "‮"} & set(page)
    assert "&lt;script&gt;$\\x$ \\x1b[2J\\u202e&#x27;&quot;" in page
