"""The golden cases: what today's code computes, each a function of nothing but the code."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from tests.golden import contents, inputs, product

Values = dict[str, Any]
FILES = Path(__file__).parent / "files"
CLASSES = inputs.CLASSES

FLOAT32 = 2e-6
"""Of the greatest value: the same float32 convolutions by other instructions, other threads or another build of torch.

Measured with `make.py --check` on one machine, oneDNN and torch held to SSE 4.1, AVX, AVX2 and AVX-512 one after the
other, one thread and two; the README has the figures.
"""
TRAINED = 1e-5
"""The same for weights and losses behind some steps of training, in which deviations add up."""
FLOAT64 = 1e-12


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes
    ----------
    name : str
        Of its files in `values/`.
    compute : callable
        Returns its values by name; runs in a fresh folder.
    tolerance : float
        Largest difference of arrays of floats, as a share of the greatest value; of single floats, as a share of
        their value or of 1, whichever is greater. Integers, texts, names and shapes are the same.
    needs : str
        What must be there; a case without it is not compared, saying so.
    """

    name: str
    compute: Callable[[], Values]
    tolerance: float
    needs: str


CASES: dict[str, Case] = {}


class NotHereError(Exception):
    """This machine cannot do a case; the message says why."""


def case(tolerance: float, needs: str = "") -> Callable[[Callable[[], Values]], Callable[[], Values]]:
    """Enter a function among the cases, under its name."""

    def enter(function: Callable[[], Values]) -> Callable[[], Values]:
        name = function.__name__.replace("_", "-")
        CASES[name] = Case(name, function, tolerance, needs)
        return function

    return enter


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Work in a folder of its own, with no cache of the user's, in one thread."""
    before, threads = Path.cwd(), torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        cache = {"XDG_CACHE_HOME": str(Path(folder) / ".cache"), "COLUMNS": "120"}
        with mock.patch.dict(os.environ, cache):
            os.chdir(folder)
            torch.set_num_threads(1)
            try:
                yield Path(folder)
            finally:
                torch.set_num_threads(threads)
                os.chdir(before)


def run(name: str) -> Values:
    """Compute a case."""
    case = CASES[name]
    if case.needs:
        try:
            __import__(case.needs)
        except ImportError:
            raise NotHereError(f"{case.needs} is not installed (make test installs it)") from None
    with fresh_folder():
        return case.compute()


# -- what several cases are made of

UNIT = {"std": (60.0, 60.0, 60.0)}
"""Of preprocessing: random weights that keep the signal's size want input of about 1."""
OTHER = {
    "channel_order": "BGR",
    "value_range": 1.0,
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.3, 0.4),
    "interpolation": "bicubic",
    "pool_round_up": False,
}


def make(
    configuration: str = "A",
    *,
    seed: int = 1,
    width: float = 1 / 32,
    image_size: int = 32,
    fc_width: int = 12,
    gain: float = 5.0,
    classes: Sequence[str] = CLASSES,
    preprocessing: Mapping[str, Any] = UNIT,
    **options: Any,
) -> Any:
    """Return a small network with weights of its own."""
    shape = {"width": width, "image_size": image_size, "fc_width": fc_width, **options}
    net = product.network(configuration, classes, preprocessing=preprocessing, **shape)
    answers = (0.5, 0.5, 0.7, 0.7) if options.get("regression") else ()
    values = inputs.weights(product.shapes(net), seed, gain, answers)
    return product.fill(net, values, train_scales=[image_size, image_size + 16], seed=0)


def saved(path: str, configuration: str = "A", **options: Any) -> str:
    product.save(make(configuration, **options), path)
    return path


def data(**counts: int) -> str:
    """Draw a data set in the folder `data`."""
    inputs.save_data(Path("data"), counts or {"train": 4, "val": 2, "test": 3})
    return "data"


SIZES = ((50, 70), (70, 50), (64, 64), (41, 97))


# -- networks


@case(FLOAT64)
def describe() -> Values:
    """Parameters, multiply-adds, receptive fields of all seven configurations."""
    found: Values = {}
    for values in product.describe("--all"):
        name, layers = values["name"], values.pop("layers")
        found[name] = values
        found[f"{name} layers"] = [list(layer.values()) for layer in layers]
        found["columns"] = list(layers[0])
    odd = product.describe("D", "--image-size", "384x500", "--cell", "1,2")
    found["D 384x500"] = {key: value for key, value in odd.items() if key != "layers"}
    return found


@case(FLOAT32)
def networks() -> Values:
    """Scores and some activations of every configuration, at a size that no pool divides."""
    pictures = np.stack([inputs.picture(f"net{i}", 75, 107) for i in range(2)])
    found: Values = {}
    for name in ("A", "A-LRN", "B", "C", "D", "E", "B-5x5"):
        found[name] = product.scores(make(name, seed=2), pictures)
    found["C batch norm"] = product.scores(make("C", batch_norm=True, preprocessing=OTHER), pictures)
    return found


@case(FLOAT32)
def initial_weights() -> Values:
    """Random weights of every scheme."""
    found: Values = {}
    for scheme in ("normal(0.01)", "glorot", "he"):
        net = product.network("A", CLASSES, width=1 / 64, image_size=32, fc_width=8, initialization=scheme)
        for name in ("conv1_1.weight", "conv3_2.weight", "fc8.weight", "fc8.bias"):
            found[f"{scheme} {name}"] = product.arrays(net)[name]
    return found


@case(1e-4)
def compiled() -> Values:
    """Scores of the native engine."""
    found: Values = {}
    pictures = np.stack([inputs.picture(f"net{i}", 75, 107) for i in range(2)])
    for name, options in (("D", {}), ("A-LRN", {}), ("C", {"batch_norm": True, "preprocessing": OTHER})):
        values = product.compiled_scores(make(name, seed=2, width=1 / 16, **options), pictures)
        if values is None:
            raise NotHereError("the native engine was not built")
        found[name] = values
    return found


# -- evaluation


@case(FLOAT32)
def posteriors() -> Values:
    """Every protocol, at one scale and several."""
    protocols = ("center@40", "dense@45", "dense@32,40,51", "crops@41", "dense+crops@36,44", "crops@36,44")
    found = product.posteriors(saved("w.safetensors"), data(), protocols, "out")
    return {**found, "metadata": product.metadata("out/dense+crops@36,44.parquet")}


@case(FLOAT32)
def posteriors_deep() -> Values:
    """A deeper network with batch norm, other preprocessing and larger windows."""
    weights = saved("w.safetensors", "C", image_size=64, batch_norm=True, preprocessing=OTHER)
    protocols = ("center@64", "dense@64,90", "dense+crops@80")
    found = product.posteriors(weights, data(test=2, train=1, val=1), protocols, "out", "--limit", "7")
    return {**found, "metadata": product.metadata("out/center@64.parquet")}


@case(FLOAT32)
def posteriors_options() -> Values:
    """Every choice of soft-max, spatial pooling, pools' rounding and split."""
    found: Values = {}
    weights, folder = saved("w.safetensors"), data()
    choices = {
        "soft-max at locations": ("--softmax", "location"),
        "maximum": ("--pool", "max"),
        "pools down": ("--pool-rounding", "down"),
        "pools up": ("--pool-rounding", "up"),
        "float32": ("--precision", "float32"),
        "val": ("--split", "val"),
        "train": ("--split", "train", "--limit", "9"),
    }
    for name, words in choices.items():
        rows = product.posteriors(weights, folder, ["dense@45,71"], name, *words)
        found[name] = rows["dense@45,71 posterior"]
        found[f"{name} errors"] = rows["errors"]
        found[f"{name} options"] = product.metadata(f"{name}/dense@45,71.parquet")["options"]
    return found


@case(0.02)
def posteriors_bf16() -> Values:
    """Half precision, which processors round differently."""
    found = product.posteriors(saved("w.safetensors"), data(), ["dense@45"], "out", "--precision", "bf16")
    return {"dense@45": found["dense@45 posterior"]}


@case(FLOAT32)
def fused() -> Values:
    """Means of posteriors, their errors, McNemar's test."""
    folder, files = data(), []
    for number, name in enumerate(("A", "B", "D"), start=1):
        product.posteriors(saved(f"{name}.safetensors", name, seed=number), folder, ["dense@40"], name)
        files.append(f"{name}/dense@40.parquet")
    two = product.fuse(files[:2], "--out", "two.parquet")
    three = product.fuse(files, "--out", "three.parquet")
    about = product.metadata("three.parquet")
    return {"two": two, "three": three, "metadata": about, "posterior": product.columns("three.parquet")["posterior"]}


@case(FLOAT32)
def predictions() -> Values:
    """Pictures of several formats, by the protocol that suits the training and by others."""
    weights = saved("w.safetensors")
    files = [str(Path(shutil.copy(file, file.name))) for file in sorted((FILES / "pictures").iterdir())]
    found: Values = {"default": product.predict(weights, files, "--engine", "torch")}
    for protocol in ("center@40", "dense@32,45"):
        found[protocol] = product.predict(weights, files, "--protocol", protocol, "--top", "2", "--engine", "torch")
    net = product.load(weights)
    for name in ("photo.jpg", "turned.jpg"):
        found[f"{name} posterior"] = product.prediction(net, name, "dense@32,45")
    return found


@case(FLOAT32)
def heat_map() -> Values:
    """A class's score map over a picture, and spread over its pixels."""
    inputs.save_picture(Path("p.png"), inputs.picture("heat", 70, 90))
    values, spread = product.heat_map(saved("w.safetensors"), "p.png", 75, "cup")
    return {"scores": values, "rows": spread[::9], "sums": spread.sum(axis=0)}


# -- training

TINY = {
    "engine": "torch",  # as when the values were made
    "network.width": 1 / 32,
    "network.image_size": 32,
    "network.fc_width": 8,
    "network.dropout": 0,
    "images.scales": [33, 44],
    "images.divide_by_std": "true",
    "initialization.scheme": "he",
    "optimizer.batch_size": 8,
    "optimizer.learning_rate": 0.03,
    "schedule.epochs": 2,
}
"""Three steps an epoch. Dropout is a case of its own: torch draws other masks on other processors."""


def words_of(settings: Mapping[str, Any]) -> list[object]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def trained(
    *words: object, net: str = "A", recipe: str | None = "paper-s256", run: str = "run", **changes: Any
) -> Values:
    """Train a few steps; return losses and figures by epoch, and weights. A change's key has __ for a dot."""
    settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    how = ["--data", "data", "--out", run, *(["--recipe", recipe] if recipe else []), *words, *words_of(settings)]
    product.train("--net", net, *how)
    return outcome(run)


def outcome(run: str) -> Values:
    """Return what a finished run leaves."""
    log = product.epochs(run)
    best, weights = product.best_weights(run)
    found: Values = {
        "steps": [line.pop("step") for line in log],
        "log": {key: np.array([line[key] for line in log]) for key in log[0] if key not in ("kind", "epoch")},
        "best epoch": best,
        "about": product.about(product.load(Path(run) / "best.safetensors")),
        "recipe": product.recipe(run),
    }
    found |= {f"log {key}": values for key, values in found.pop("log").items()}
    norms = {key: float(np.linalg.norm(value.astype(np.float64))) for key, value in weights.items()}
    return {**found, "best norms": norms, **packed("final", product.final_weights(run))}


def packed(name: str, arrays: Mapping[str, NDArray[Any]]) -> Values:
    """Return a network's floats end to end, their sizes by tensor, and its integers; few large arrays make small files.

    Each tensor is divided by its greatest value, so that a tolerance holds for each, not for the largest alone; but by
    a hundredth at least, since what stands behind nothing but rounding (biases before batch norm) is no value.
    """
    floats = {key: value for key, value in arrays.items() if value.dtype.kind == "f"}
    most = {key: max(float(np.abs(value).max()), 0.01) for key, value in floats.items()}
    return {
        f"{name} tensors": {key: list(value.shape) for key, value in floats.items()},
        f"{name} greatest": most,
        f"{name} weights": np.concatenate([(value / most[key]).ravel() for key, value in floats.items()]),
        f"{name} integers": {key: value.tolist() for key, value in arrays.items() if key not in floats},
    }


@case(TRAINED)
def train_plain() -> Values:
    """The paper's recipe: momentum, weight decay, jitter, color shift, a learning rate that falls on a plateau."""
    data()
    return trained(schedule__epochs=5, schedule__patience=1, schedule__drops=1, regularization__ema=0)


@case(TRAINED)
def train_literal() -> Values:
    """The literal readings: one scale, Krizhevsky's color shift as printed, pools rounded down, no jitter, no flips."""
    data()
    return trained(
        net="A-LRN",
        images__scales=[36, 36],
        images__color_shift="literal",
        images__flip="false",
        images__interpolation="bicubic",
        images__pool_round_up="false",
        optimizer__learning_rate=0.1,
        optimizer__bias_learning_rate=2,
        optimizer__bias_weight_decay=0,
    )


@case(TRAINED)
def train_dropout() -> Values:
    """Dropout, whose masks torch draws."""
    torch.manual_seed(5)
    masks = [int(kept) for kept in torch.nn.functional.dropout(torch.ones(64), 0.5) > 0]
    data()
    return {"masks": masks, **trained(network__dropout=0.5, network__fc_width=32)}


@case(TRAINED)
def train_batch_norm() -> Values:
    """Batch norm alone: its running statistics, and validation with them."""
    data()
    return trained(network__batch_norm="true")


@case(TRAINED)
def train_modern() -> Values:
    """All later inventions at once: batch norm, moving average, mixup, label smoothing, cosine with warm-up."""
    data()
    return trained(
        "--net",
        "B",
        recipe="modern",
        precision="float32",
        schedule__epochs=3,
        schedule__warmup_epochs=1,
        regularization__ema=0.8,
        regularization__mixup=0.3,
    )


@case(TRAINED)
def train_accumulation() -> Values:
    """The batch in parts."""
    data()
    return trained(optimizer__accumulation=3)


@case(TRAINED)
def train_from_shallower() -> Values:
    """The paper's seven layers taken over."""
    data()
    source = saved("A.safetensors", fc_width=8)
    return trained("--init-from", source, net="B", initialization__scheme="normal(0.05)")


@case(TRAINED)
def train_fine_tuning() -> Values:
    """Other classes, layers begun anew, frozen and slowed down, by the recipe for it."""
    data()
    source = saved("w.safetensors", classes=("one", "two"), fc_width=8, batch_norm=True)
    words = ("--init-from", source, "--reset", "fc8", "--freeze", "conv1", "--freeze", "conv2")
    settings = {"engine": "torch", "optimizer.batch_size": 8, "schedule.epochs": 3}
    product.train(*words, "--data", "data", "--out", "run", *words_of(settings))
    return outcome("run")


def trained_boxes(regression: str, *words: object, **changes: Any) -> Values:
    data()
    source = saved("w.safetensors", fc_width=8)
    task = ("--task", "localize", "--regression", regression, "--init-from", source)
    changes = {"optimizer__learning_rate": 0.05, "schedule__epochs": 4, **changes}
    return trained(*task, *words, recipe="paper-boxes", **changes)


@case(TRAINED)
def train_scr() -> Values:
    """One box for all classes; fully connected layers alone."""
    return trained_boxes("scr", "--tune", "fc")


@case(TRAINED)
def train_pcr() -> Values:
    """A box for each class; all layers."""
    return trained_boxes("pcr", "--tune", "all", boxes__least_visible=0.7)


# -- localization


def pair(regression: str = "pcr", **options: Any) -> tuple[str, str]:
    """Return a classifier and a localizer."""
    classifier = saved("classifier.safetensors", fc_width=16, gain=2.0, **options)
    return classifier, saved("localizer.safetensors", fc_width=16, gain=0.1, seed=3, regression=regression, **options)


@case(FLOAT32)
def boxes() -> Values:
    """Boxes of all windows and merged ones, dense, as crops, and central; their figures."""
    nets, folder = pair(), data(train=1, val=1, test=2)
    protocols = ("center@40", "dense@71", "dense@40,64", "crops@48")
    found: Values = {"figures": product.box_file(*nets, folder, protocols, "out")}
    for protocol in protocols:
        table = product.columns(f"out/{protocol}.parquet")
        if protocol == "crops@48":  # 25 windows each: of few images
            table = {name: value[: 6 * 25 * 4 * 2] if name == "windows" else value for name, value in table.items()}
        found |= {f"{protocol} {name}": value for name, value in table.items()}
    return {**found, "metadata": product.metadata("out/dense@40,64.parquet")}


@case(FLOAT32)
def boxes_of_one_regression() -> Values:
    """One box for all classes, classes from given posteriors, a threshold, OverFeat's match score as printed."""
    nets, folder = pair("scr"), data(train=1, val=1, test=2)
    product.posteriors(nets[0], folder, ["dense@40,48"], "classes")
    given = ("--posteriors", "classes/dense@40,48.parquet")
    found: Values = {}
    for name, words in (("0.8", ("--threshold", "0.8")), ("literal", ("--threshold", "900", "--match", "literal"))):
        found[f"{name} figures"] = product.box_file(*nets, folder, ["dense@80"], name, *given, *words)
        table = product.columns(f"{name}/dense@80.parquet")
        found |= {f"{name} {key}": table[key] for key in ("id", "classes", "posteriors", "boxes", "ratings", "windows")}
    return found


@case(FLOAT32)
def boxes_tuned_and_fused() -> Values:
    """The threshold of merging chosen, and boxes of several files merged together."""
    nets, folder = pair(), data(train=1, val=1, test=3)
    product.posteriors(nets[0], folder, ["dense@48"], "classes")
    given = ("--posteriors", "classes/dense@48.parquet")
    product.box_file(*nets, folder, ["dense@71", "dense@80"], "out", *given)
    files = ["out/dense@71.parquet", "out/dense@80.parquet"]
    tuned = product.tune(files, "--share", "0.4", "--out", "tuned.json")
    together = product.fuse(files, "--tuned", "tuned.json", "--out", "fused.parquet")
    table = product.columns("fused.parquet")
    return {"tuned": tuned, "fused": together, "boxes": table["boxes"], "ratings": table["ratings"]}


@case(FLOAT64)
def merging() -> Values:
    """Boxes with whole edges merged greedily, by both match scores, to several thresholds."""
    found: Values = {}
    for count in (7, 60, 2100):
        for match, thresholds in (("recommended", (0.3, 0.8)), ("literal", (40.0, 400.0))):
            for threshold in thresholds:
                side = 4000 if count > 100 else 100
                merged, members = product.merge(inputs.boxes(count, side), threshold, match)
                name = f"{count} {match} {threshold:g}"
                found[f"{name} members"] = members.tolist() if count < 100 else digest(members)
                found[f"{name} boxes"] = merged[:40]
                found[f"{name} left"] = len(merged)
    return found


@case(FLOAT32)
def localized() -> Values:
    """What `verydeep localize` says of pictures."""
    nets, pictures = pair(), inputs.save_pictures(Path("p"), SIZES)
    found: Values = {"default": product.localize(*nets, pictures, "--top", "3")}
    for protocol in ("dense@64", "center@40", "crops@40,48"):
        found[protocol] = product.localize(*nets, pictures[:2], "--top", "2", "--protocol", protocol)
    return found


# -- descriptors and transfer


@case(FLOAT32)
def descriptors() -> Values:
    """Layers, scales, aggregates, normalizations, mirror images, stacked networks."""
    weights, other = saved("w.safetensors"), saved("v.safetensors", "B", batch_norm=True, seed=5)
    pictures = inputs.save_pictures(Path("p"), SIZES)
    choices: dict[str, dict[str, Any]] = {
        "usual": {"scales": (40, 51)},
        "stacked": {"scales": (40, 51), "aggregate": "stack", "normalize": "l2-scales"},
        "maximum": {"scales": (40, 51, 64), "aggregate": "max", "normalize": "l2-whole"},
        "plain": {"scales": (45,), "normalize": "none", "flip": False},
        "pool5": {"scales": (64,), "layer": "pool5"},
        "conv3_2": {"scales": (40,), "layer": "conv3_2", "normalize": "none"},
        "conv4_1.relu": {"scales": (40,), "layer": "conv4_1.relu"},
        "fc8": {"scales": (40,), "layer": "fc8", "normalize": "none"},
        "fc6": {"scales": (40, 64), "layer": "fc6", "aggregate": "max"},
    }
    found: Values = {}
    for name, settings in choices.items():
        found[name], found[f"{name} columns"] = product.descriptors(weights, pictures, **settings)
    both = {"scales": (40, 51), "aggregate": "stack", "normalize": "l2-whole"}
    found["two networks"], found["two networks columns"] = product.descriptors([weights, other], pictures, **both)
    return found


@case(FLOAT32)
def features() -> Values:
    """Files of descriptors, of pictures and of a data set."""
    weights, pictures = saved("w.safetensors"), inputs.save_pictures(Path("p"), SIZES)
    said = product.features(pictures, [weights], "p.parquet", "--scales", "40,51")
    sets = product.features([data(train=1, val=1, test=1)], [weights], "d.npy", "--scales", "40", "--layer", "fc7")
    found: Values = {"said": [said, sets], "metadata": product.metadata("p.parquet"), "data": np.load("d.npy")}
    table = product.columns("p.parquet")
    return {**found, **{name: table[name] for name in ("id", "label", "split", "descriptor")}}


@case(1e-4)
def transfers() -> Values:
    """Linear classifiers on descriptors: figures, chosen C, posteriors; the solver stops at a tolerance of its own."""
    inputs.save_data(Path("data"), {"": 8}, CLASSES[:4])
    weights = ("--weights", saved("w.safetensors", width=1 / 16, fc_width=32))
    kinds: dict[str, tuple[object, ...]] = {
        "svm": (*weights, "--scales", "40,51"),
        "logistic": (*weights, "--scales", "40", "--classifier", "logistic", "--layer", "pool5"),
        "folds": (*weights, "--scales", "40", "--folds", "2", "--no-flip"),
        "pixels": ("--baseline", "pixels"),
    }
    found: Values = {}
    for name, words in kinds.items():
        result = product.transfer(name, "--data", "data", "--cache", "cache", *words)
        found[name] = {key: value for key, value in result.items() if key != "data_provenance"}
    found["svm posterior"] = product.columns("svm/posteriors-1.parquet")["posterior"]
    rows = product.posteriors("svm/classifier.safetensors", "data", ["dense@40,51"], "deployed")
    found["deployed"], found["deployed posterior"] = rows["errors"], rows["dense@40,51 posterior"]
    return found


# -- score maps


@case(FLOAT32, needs="zarr")
def score_maps() -> Values:
    """A picture in bands, at strides 32 and 8, several scales, part of it, and its peaks."""
    weights, pixels = saved("w.safetensors", gain=4.0), inputs.picture("map", 420, 260, cell=20)
    spare = 120 * 2**20
    found: Values = {}
    usual = product.score_map(pixels, weights, spare=spare, scales=(1.0, 0.5), out="map.zarr")
    found["in bands"] = product.in_bands(usual)
    for name, some in (("usual", usual), ("read again", product.read_map("map.zarr"))):
        found |= {f"{name} {scale}": values for scale, values in product.level_values(some)}
    choices: dict[str, dict[str, Any]] = {
        "stride 8": {"stride": 8, "classes": ["bell", "cup"]},
        "scores": {"softmax": False, "region": (40, 100, 180, 200)},
    }
    for name, options in choices.items():
        some = product.score_map(pixels, weights, spare=spare, **options)
        found |= {f"{name} {scale}": values for scale, values in product.level_values(some)}
        if name == "stride 8":
            found["in bands at stride 8"] = product.in_bands(some)
            found["peaks at stride 8"] = product.peaks(some, 0.3)
    return {**found, "peaks": product.peaks(usual, 0.3)}


# -- files of other projects


def digest(array: NDArray[Any]) -> str:
    """Return type, shape and hash: for arrays that are copied and not computed."""
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:20]
    return f"{array.dtype} {'x'.join(map(str, array.shape))} {content}"


def digests(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {name: digest(array) for name, array in arrays.items()}


@case(FLOAT64)
def converted_in() -> Values:
    """Files of other projects, kept here, read: every array, classes, preprocessing."""
    found: Values = {}
    for file in sorted((FILES / "foreign").iterdir()):
        if file.suffix == ".prototxt":
            continue
        definition = file.with_suffix(".prototxt")
        words = ("--prototxt", definition) if definition.exists() else ()
        said = product.convert(file, "w.safetensors", *words)
        found[file.name] = {key: value for key, value in said.items() if key not in ("source", "out")}
        net = product.load("w.safetensors")
        found[f"{file.name} arrays"] = digests(product.arrays(net))
        found[f"{file.name} about"] = product.about(net)
    return found


@case(FLOAT64)
def converted_out() -> Values:
    """Networks as files of other projects: every array by the names that they have there."""
    saved("plain.safetensors", "D", width=1 / 64, fc_width=8)
    saved("norm.safetensors", "B", width=1 / 64, fc_width=8, batch_norm=True, preprocessing=OTHER)
    saved("lrn.safetensors", "A-LRN", width=1 / 64, fc_width=8)
    found: Values = {}
    targets = {
        "torchvision.pth": ("plain", "torchvision"),
        "torchvision-bn.safetensors": ("norm", "torchvision"),
        "timm.safetensors": ("plain", "timm"),
        "timm-bn.pth": ("norm", "timm"),
        "keras.h5": ("plain", "keras"),
        "keras.weights.h5": ("plain", "keras"),
        "caffe.caffemodel": ("plain", "caffe"),
        "lrn.caffemodel": ("lrn", "caffe"),
    }
    for file, (source, target) in targets.items():
        product.convert(f"{source}.safetensors", file, "--to", target)
        found[file] = digests(contents.read(Path(file)))
        product.convert(file, "again.safetensors")
        ours, again = (product.arrays(product.load(name)) for name in (f"{source}.safetensors", "again.safetensors"))
        found[f"{file} read again"] = digests(ours) == digests(again)
    found["prototxt"] = Path("lrn.prototxt").read_text(encoding="utf-8")
    return found


@case(FLOAT32)
def folded() -> Values:
    """Batch norm moved into the convolutions."""
    saved("norm.safetensors", "C", width=1 / 64, fc_width=8, batch_norm=True)
    product.convert("norm.safetensors", "folded.safetensors", "--fold-batch-norm")
    net = product.load("folded.safetensors")
    return {"about": product.about(net), **packed("folded", product.arrays(net))}


def exported(form: str, suffix: str) -> Values:
    saved("plain.safetensors", "A-LRN", width=1 / 64, fc_width=8)
    saved("norm.safetensors", "C", width=1 / 64, fc_width=8, batch_norm=True, preprocessing=OTHER)
    inputs.save_pictures(Path("pictures"), SIZES)
    found: Values = {}
    for name, words in (("plain", ()), ("norm", ("--raw-input",))):
        said = product.export(f"{name}.safetensors", form, f"{name}{suffix}", "--check", "pictures", *words)
        found[name] = said
        read = contents.read(Path(f"{name}{suffix}"))
        found[f"{name} arrays"] = {key: list(value.shape) for key, value in read.items()}
        # Batch norm is folded in float64 and rounded: the last bit is the processor's.
        found[f"{name} values"] = np.concatenate([value.astype(np.float64).ravel() for value in read.values()])
    return found


@case(FLOAT32, needs="onnx")
def exported_onnx() -> Values:
    """ONNX: nodes and initializers."""
    found = exported("onnx", ".onnx")
    return {**found, **{f"{name} nodes": contents.nodes(Path(f"{name}.onnx")) for name in ("plain", "norm")}}


@case(FLOAT32, needs="openvino")
def exported_openvino() -> Values:
    """OpenVINO: constants."""
    return exported("openvino", ".xml")


@case(FLOAT32)
def exported_torch() -> Values:
    """torch.export: parameters and constants."""
    return exported("torch", ".pt2")


# -- files that an earlier version wrote


def copied(*names: str) -> None:
    """Copy files of an earlier version into the folder of the case, and draw the data that they are of."""
    for name in names:
        shutil.copytree(FILES / name, name, dirs_exist_ok=True)
    data()


def stamps(folder: str) -> dict[str, int]:
    """Return when what costs time to make was written last."""
    kept = (".parquet", ".safetensors", ".ckpt", ".jsonl", ".md")
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.suffix in kept}


@case(FLOAT32)
def old_weights() -> Values:
    """Weights files of every kind."""
    found: Values = {}
    pictures = np.stack([inputs.picture(f"old{i}", 45, 64) for i in range(2)])
    for file in sorted((FILES / "weights").iterdir()):
        net = product.load(file)
        found[f"{file.name} about"] = product.about(net)
        found[f"{file.name} arrays"] = digests(product.arrays(net))
        found[file.name] = product.scores(net, pictures)
    return found


@case(FLOAT32)
def old_results() -> Values:
    """Posteriors, boxes and features: read, and taken up by the commands."""
    copied("weights", "results")
    found: Values = {"posteriors": product.read_posteriors("results/dense@32,40.parquet")}
    found["boxes"] = product.read_boxes("results/boxes/dense@64.parquet")
    found["fused"] = product.fuse(["results/dense@32.parquet", "results/dense@40.parquet"])
    found["fused boxes"] = product.fuse(["results/boxes/dense@64.parquet"], "--threshold", "0.7")
    found["tuned"] = product.tune(["results/boxes/dense@64.parquet"], "--share", "0.5")
    before = stamps("results")
    plain = "weights/plain.safetensors"
    product.posteriors(plain, "data", ["dense@32,40"], "results")
    product.box_file(plain, "weights/pcr.safetensors", "data", ["dense@64"], "results/boxes")
    how = ("--scales", "32,40", "--layer", "fc7")
    found["features"] = product.features(["data"], [plain], "results/features.parquet", *how)
    found["left alone"] = stamps("results") == before
    return {f"{name} {key}": value for name, part in found.items() if isinstance(part, dict) for key, value in
            part.items()} | {name: part for name, part in found.items() if not isinstance(part, dict)}  # fmt: skip


@case(TRAINED)
def old_run_continued() -> Values:
    """A run of the paper's recipe, stopped within its second epoch, goes on to its end."""
    copied("runs")
    return {"before": product.epochs("runs/plain"), **continued("plain")}


@case(TRAINED)
def old_modern_run_continued() -> Values:
    """The same with batch norm and a moving average of the weights."""
    copied("runs")
    return {"before": product.epochs("runs/modern"), **continued("modern")}


STOPPED: dict[str, tuple[object, ...]] = {
    "plain": ("--net", "A", "--recipe", "paper-s256"),
    "modern": ("--net", "A", "--recipe", "modern", "--set", "precision=float32", "--set", "regularization.ema=0.8"),
}
"""The words of the runs in `files/runs`, beside those that all have in common."""
STOPPED_TINY = {**TINY, "network.width": 1 / 64, "schedule.epochs": 3, "images.scales": [33, 40]}


def stopped_words(name: str, run: str = "") -> list[object]:
    return [*STOPPED[name], "--data", "data", "--out", f"runs/{run or name}", *words_of(STOPPED_TINY)]


def continued(name: str) -> Values:
    product.train(*stopped_words(name))
    return outcome(f"runs/{name}")


@case(FLOAT32)
def old_run_finished() -> Values:
    """A finished run is taken as it is."""
    copied("runs")
    before = stamps("runs/finished")
    metrics = product.train(*stopped_words("plain", "finished"))
    return {"figures": metrics, "left alone": stamps("runs/finished") == before}


@case(FLOAT32)
def old_study() -> Values:
    """A study is taken as it is; its tables."""
    copied("study")
    before = stamps("study")
    found: Values = {"tables": product.tables("study")}
    product.reproduce("study/preset.toml", "data", "study/out")
    report = Path("study/out/report.html").read_text(encoding="utf-8")
    return {**found, "left alone": stamps("study") == before, "report names": [f"Table {n}" in report for n in (3, 4)]}
