"""Images of several labels, as files of people's tools give them: read whole, or asked back where that is not clear."""

import io
import json
from collections import Counter

import pandas as pd
import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.label_choice import LabelChoice, names_in
from verydeep.datasets.opening import Reading, read_layout
from verydeep.datasets.survey import survey

SPLITS = ("train", "val", "test")
NAMES = [f"{number:03d}" for number in range(60)]
CLASSES = ("bird", "cat", "dog")


@pytest.fixture
def truth(rng):
    """Two of three classes at most for each picture, every class and none among them, as text is sorted."""
    found = {name: tuple(c for c in CLASSES if rng.random() < 0.5) for name in NAMES}
    given = [("bird",), ("bird",), ("cat",), ("dog",), ("bird", "cat"), ("bird", "dog"), ("cat", "dog"), ()]
    return found | dict(zip(NAMES, given, strict=False))


def read(source, **options):
    """Return the labels of every picture, whatever its split."""
    parts = [open_dataset(source, split, **options) for split in SPLITS]
    assert all(part.multi_label for part in parts)
    assert all(sample.label == -1 for part in parts for sample in part.samples)
    return {
        sample.id.rpartition("/")[2][:-4]: tuple(part.classes[label] for label in sample.labels)
        for part in parts
        for sample in part.samples
    }


def csv(rows):
    file = io.StringIO()
    pd.DataFrame(rows).to_csv(file, index=False)
    return file.getvalue().encode()


def parquet(rows):
    file = io.BytesIO()
    pd.DataFrame(rows).to_parquet(file)
    return file.getvalue()


def lines(rows):
    return pd.DataFrame(rows).to_json(orient="records", lines=True).encode()


def pictures(truth):
    return [f"{name}.png" for name in truth]


def ones(truth, yes, no):
    return {name: [yes if name in own else no for own in truth.values()] for name in CLASSES}


# Of each form: the file's name, its content, and whether a picture without labels can be told from one that is unknown.
FORMS = {
    "a bar": lambda t: ("x.csv", csv({"image": pictures(t), "labels": ["|".join(own) for own in t.values()]}), False),
    "semicolons": lambda t: ("x.csv", csv({"id": list(t), "tags": ["; ".join(own) for own in t.values()]}), False),
    "commas whose parts stand alone": lambda t: (
        "x.csv",
        csv({"image": pictures(t), "tags": [",".join(own) for own in t.values()]}),
        False,
    ),
    "words whose parts stand alone": lambda t: (
        "x.csv",
        csv({"image_name": list(t), "tags": [" ".join(own) for own in t.values()]}),
        False,
    ),
    "JSON lists in CSV": lambda t: (
        "x.csv",
        csv({"image": pictures(t), "labels": [json.dumps(own) for own in t.values()]}),
        True,
    ),
    "Python's lists in CSV": lambda t: (
        "x.csv",
        csv({"image": pictures(t), "labels": [str(list(own)) for own in t.values()]}),
        True,
    ),
    "JSON lines": lambda t: ("metadata.jsonl", lines({"file_name": pictures(t), "labels": list(t.values())}), True),
    "lists in Parquet": lambda t: (
        "x.parquet",
        parquet({"file_name": pictures(t), "label": list(map(list, t.values()))}),
        True,
    ),
    "a JSON dictionary": lambda t: ("x.json", json.dumps({f"{n}.png": own for n, own in t.items()}).encode(), True),
    "one-hot": lambda t: ("_classes.csv", csv({"filename": pictures(t), **ones(t, 1, 0)}), True),
    "one-hot of floats": lambda t: ("x.csv", csv({"ID": list(t), **ones(t, 1.0, 0.0)}), True),
    "one-hot of CelebA": lambda t: ("list_attr.csv", csv({"image_id": pictures(t), **ones(t, 1, -1)}), True),
    "one-hot of words": lambda t: ("x.parquet", parquet({"path": pictures(t), **ones(t, True, False)}), True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(tree, truth, form):
    name, content, says_none = FORMS[form](truth)
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {name: content})
    assert read(source) == {n: own for n, own in truth.items() if own or says_none}


@pytest.mark.parametrize("separator", [",", " ", "/", "+"])
def test_what_may_be_names_is_asked_back_and_the_answer_is_taken(tree, truth, separator):
    many = {name: (*own, "zebra") for name, own in truth.items()}  # zebras are nowhere alone
    many[NAMES[6]] = ()
    rows = {"image": pictures(many), "tags": [separator.join(own) for own in many.values()]}
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {"x.csv": csv(rows)})
    if separator in ", ":
        with pytest.raises(
            UserError,
            match=f"column tags: .* may be names or several labels; say --labels one, or --labels '{separator}'",
        ):
            open_dataset(source, "train")
    assert read(source, labels=separator) == {name: own for name, own in many.items() if own}
    one = read_layout(source, choice=LabelChoice(several=False))
    assert set(one.classes) == {separator.join(own) for own in many.values() if own}


@pytest.mark.parametrize(
    "names",
    [
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark, man-eater"],
        ["golden retriever", "labrador retriever", "flat-coated retriever", "pug"],
        ["Audi A4 2012", "Audi A5 2012", "BMW X5 2007"],
        ["cat", "dog"],
    ],
)
def test_names_of_several_words_stay_one_class(tree, names):
    rows = {"image": [f"{n}.png" for n in NAMES], "label": [names[i % len(names)] for i in range(len(NAMES))]}
    part = open_dataset(tree("set", [f"photos/{n}.png" for n in NAMES], {"x.csv": csv(rows)}), "train")
    assert part.classes == tuple(sorted(names))
    assert not part.multi_label


def test_columns_that_are_not_sure_are_asked_back(tree, truth):
    rows = {"Path": pictures(truth), **ones(truth, "1.0", "0.0")}
    rows["cat"] = ["-1.0" if i == 5 else cell for i, cell in enumerate(rows["cat"])]
    rows["dog"] = ["" if i == 9 else cell for i, cell in enumerate(rows["dog"])]
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {"train.csv": csv(rows)})
    with pytest.raises(
        UserError, match="of columns that say 0 or 1, cat, dog hold -1 or nothing in places; write 0 or 1"
    ):
        open_dataset(source, "train")
    assert set(open_dataset(source, "train", reader="table:train.csv::bird").classes) == {"1.0", "0.0"}


def test_lists_of_ones_and_zeros_are_asked_back(tree, truth):
    rows = {"image": pictures(truth), "labels": [[int(c in own) for c in CLASSES] for own in truth.values()]}
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {"x.jsonl": lines(rows)})
    with pytest.raises(
        UserError, match="column labels: lists of 3 zeros and ones may say of each class whether it is there"
    ):
        open_dataset(source, "train")


def test_words_of_one_cell_among_those_of_another_are_asked_back(tree):
    tags = ["haze primary", "clear primary", "clear primary water", "haze water primary"]
    rows = {"image": [f"{n}.png" for n in NAMES], "tags": [tags[i % 4] for i in range(len(NAMES))]}
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {"x.csv": csv(rows)})
    with pytest.raises(UserError, match="may be names or several labels; say --labels one, or --labels ' '"):
        open_dataset(source, "train")


def test_numbers_with_spaces_between_are_labels():
    assert LabelChoice().separator_of(["16 0", "7 1 2 0", "0"], "x.csv") == " "
    assert names_in("16 0", " ") == ["16", "0"]
    assert names_in("['cat' 'dog']", "") == ["cat", "dog"]  # as NumPy writes
    assert (names_in(" ", ";"), names_in("[]", ";"), names_in(None, ""), names_in(3.0, "")) == (None, [], None, ["3"])


@pytest.mark.parametrize("text", ["", "and", "a", ";;"])
def test_what_is_no_choice_is_refused(text):
    with pytest.raises(UserError, match="expected one, several, or what stands between labels"):
        LabelChoice.parse(text)


def test_rows_that_differ_are_asked_back(tree, truth):
    rows = {"image": ["000.png", *pictures(truth)], "label": ["cat", *["dog", "bird"] * 30]}
    source = tree("set", [f"photos/{n}.png" for n in NAMES], {"x.csv": csv(rows)})
    with pytest.raises(
        UserError, match=r"1 pictures have rows with different labels \(000.png: cat, dog\); say --labels several"
    ):
        open_dataset(source, "train")
    assert read(source, labels="several")["000"] == ("cat", "dog")
    with pytest.raises(UserError, match="--labels one allows one"):
        open_dataset(source, "train", labels="one")


def test_roboflows_tables_of_each_split(tree, truth):
    parts = {"train": NAMES[:40], "valid": NAMES[40:50], "test": NAMES[50:]}
    files = {}
    for split, names in parts.items():
        own = {name: truth[name] for name in names}
        rows = {" filename": pictures(own), **{f" {name}": flags for name, flags in ones(own, 1, 0).items()}}
        files[f"{split}/_classes.csv"] = csv(rows)
    source = tree("set", [f"{split}/{n}.png" for split, names in parts.items() for n in names], files)
    assert read(source) == truth
    assert [len(open_dataset(source, split)) for split in SPLITS] == [40, 10, 10]


def coco(truth, boxes):
    annotations = [
        {
            "id": 10 * i + k,
            "image_id": i,
            "category_id": CLASSES.index(c) + 3,
            **({"bbox": [k, 1, 4 + k, 5]} if boxes else {}),
        }
        for i, own in enumerate(truth.values())
        for k, c in enumerate(own)
    ]
    images = [{"id": i, "file_name": f"{n}.png", "height": 24, "width": 32} for i, n in enumerate(truth)]
    categories = [{"id": k + 3, "name": name} for k, name in enumerate(CLASSES)]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def test_coco_of_several_categories(tree, truth):
    plain = tree("plain", [f"images/{n}.png" for n in NAMES], {"x.json": coco(truth, boxes=False)})
    assert read(plain) == truth
    boxed = tree("boxed", [f"images/{n}.png" for n in NAMES], {"x.json": coco(truth, boxes=True)})
    assert not open_dataset(boxed, "train").multi_label  # the largest object's
    assert read(boxed, labels="several") == truth


def test_yolo_and_voc_of_several_objects(tree, truth):
    def yolo(own):
        return "".join(f"{CLASSES.index(c)} 0.5 0.5 0.{k + 1} 0.2\n" for k, c in enumerate(own)).encode()

    def voc(own):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        objects = "".join(f"<object><name>{c}</name>{box}</object>" for c in own)
        return f"<annotation><filename>x</filename>{objects}</annotation>".encode()

    texts = {f"labels/{n}.txt": yolo(own) for n, own in truth.items()}
    names = b"names: [bird, cat, dog]"
    source = tree("yolo", [f"images/{n}.png" for n in NAMES], {**texts, "data.yaml": names})
    assert read(source, labels="several") == truth
    files = {f"Annotations/{n}.xml": voc(own) for n, own in truth.items()}
    assert read(tree("voc", [f"images/{n}.png" for n in NAMES], files), labels="several") == truth


@pytest.mark.parametrize("form", ["full", "minimal"])
def test_choices_of_label_studio(tree, truth, form):
    some = {name: own for name, own in truth.items() if own}
    tasks = []
    for number, (name, own) in enumerate(some.items()):
        path = f"/data/upload/1/{number:08x}-{name}.png"
        results = [{"from_name": "what", "type": "choices", "value": {"choices": list(own)}}]
        full = {"id": number, "data": {"image": path}, "annotations": [{"result": results}]}
        minimal = {
            "image": path,
            "id": number,
            "choice": {"choices": list(own)} if len(own) > 1 else own[0],
            "annotator": 1,
        }
        tasks.append(full if form == "full" else minimal)
    assert read(tree("set", [f"{n}.png" for n in NAMES], {"x.json": json.dumps(tasks).encode()})) == some
    if form == "full":
        tasks[0]["annotations"][0]["result"].append({"from_name": "light", "value": {"choices": ["dark"]}})
        source = tree("two", [f"{n}.png" for n in NAMES], {"x.json": json.dumps(tasks).encode()})
        with pytest.raises(UserError, match=r"answers several questions \(what, light\)"):
            open_dataset(source, "train")


def test_images_are_held_out_class_by_class(tree, rng):
    truth = {name: tuple(c for c in CLASSES if rng.random() < 0.4) for name in NAMES}
    truth |= dict(
        zip(
            NAMES,
            [("cat", "rare"), ("dog", "rare"), ("rare",), ("rare",), ("rare",), ("rare",), ("once", "cat")],
            strict=False,
        )
    )
    rows = {"image": pictures(truth), "labels": [json.dumps(own) for own in truth.values()]}
    source = tree("set", [f"{n}.png" for n in NAMES], {"x.csv": csv(rows)})
    parts = {split: open_dataset(source, split) for split in SPLITS}
    names = {split: {sample.id for sample in part.samples} for split, part in parts.items()}
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == len(NAMES)
    counts = {
        split: Counter(part.classes[label] for sample in part.samples for label in sample.labels)
        for split, part in parts.items()
    }
    assert all(counts[split][name] for split in SPLITS for name in (*CLASSES, "rare"))
    assert counts["train"]["once"] == 1
    assert len(names["test"]) == pytest.approx(0.2 * len(NAMES), abs=3)


def test_what_is_counted(tree, truth):
    rows = {"image": pictures(truth), "labels": [json.dumps(own) for own in truth.values()]}
    source = tree("set", [f"{n}.png" for n in NAMES], {"train.csv": csv(rows)})
    part = open_dataset(source, "train")
    [found] = survey([part])
    labels = Counter(c for sample in part.samples for c in truth[sample.id[:-4]])
    assert dict(zip(part.classes, found.per_class, strict=True)) == dict(labels)
    numbers = Counter(len(truth[sample.id[:-4]]) for sample in part.samples)
    assert {number: count for number, count in enumerate(found.labels_per_image) if count} == dict(numbers)
    assert [tuple(part.classes[k] for k in range(3) if row[k] == 1) for row in part.targets()] == [
        truth[sample.id[:-4]] for sample in part.samples
    ]
    other = part.subset(range(len(part)))
    assert other.fingerprint() == part.fingerprint()
    other.samples = [*part.samples[:-1], type(part.samples[0])(part.samples[-1].id, -1, labels=(0, 1, 2))]
    assert (other.fingerprint() == part.fingerprint()) == (part.samples[-1].labels == (0, 1, 2))


def test_who_needs_one_class_says_so(tree, truth):
    rows = {"image": pictures(truth), "labels": ["|".join(own) for own in truth.values()]}
    source = tree("set", [f"{n}.png" for n in NAMES], {"x.csv": csv(rows)})
    with pytest.raises(
        UserError, match=r"images have several labels, and here an image has one class; .* take several$"
    ):
        Reading().open(source, "train")
    with pytest.raises(UserError, match=r"take several, for classes alone$"):
        Reading().open(source, "train", boxes=True)
    assert Reading().open(source, "train", several=True).multi_label
    folders = tree("folders", [f"{c}/{n}.png" for c in ("a", "b") for n in NAMES[:9]])
    with pytest.raises(UserError, match="has the class of its folder, so leave out --labels"):
        open_dataset(folders, "train", labels="several")
