"""All that the golden cases call of verydeep: where its modules or arguments are renamed, this file alone changes.

The command line comes first, then the package's public names, then the few modules that neither reaches.
"""

import contextlib
import io
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

import verydeep as vd

Array = NDArray[Any]
Words = Sequence[object]

CHANGING = re.compile(
    r"created_by|version|seconds|images_per_second|waiting|machine|.*_hash|sha256|.*_sha256|weights_file"
    r"|stated|tried|macro_recall|macro_precision|by_class"
)
"""Keys that tell of the moment, machine, version, a file whose bytes do not matter; and keys of later versions."""


# -- the command line


def command(*words: object) -> str:
    """Run a command in this process; return what it prints, raise what it raises."""
    from verydeep.cli.main import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = app([str(word) for word in words], standalone_mode=False)
    if status:
        raise RuntimeError(f"verydeep {' '.join(map(str, words))}: exit status {status}\n{out.getvalue()}")
    return out.getvalue()


def report(*words: object) -> Any:
    """Run a command with --json; return what it says, without what changes from run to run."""
    return steady(json.loads(command(*words, "--json")))


def steady(values: Any) -> Any:
    """Return JSON's values without what changes from run to run, machine to machine, version to version."""
    if isinstance(values, dict):
        return {key: steady(value) for key, value in values.items() if not CHANGING.fullmatch(key)}
    return [steady(value) for value in values] if isinstance(values, list) else values


# -- networks


def network(
    configuration: str, classes: Sequence[str], *, preprocessing: Mapping[str, Any] | None = None, **shape: Any
) -> Any:
    """Make a network whose weights are to be given by `fill`; `shape` as in `verydeep.create`."""
    about = None if preprocessing is None else vd.Preprocessing(**preprocessing)
    return vd.create(configuration, list(classes), preprocessing=about, seed=0, **shape)


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def fill(net: Any, values: Mapping[str, Array], **provenance: Any) -> Any:
    """Give a network its weights, and say where it comes from; return it in testing mode."""
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})
    from verydeep.nets.run_info import RunInfo

    net.provenance = RunInfo.from_dict(provenance)
    return net.eval()


def save(net: Any, path: str | Path) -> None:
    vd.save(net, path)


def load(path: str | Path) -> Any:
    return vd.load(path)


def arrays(net: Any) -> dict[str, Array]:
    """Return a network's tensors by name."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in net.state_dict().items()}


def about(net: Any) -> dict[str, Any]:
    """Return what a network is beside its weights."""
    from verydeep.nets.weights import describe

    values: dict[str, Any] = steady(json.loads(json.dumps(describe(net))))
    (values.get("provenance") or {}).pop("engine", None)  # not yet known when the values were made
    return values


def scores(net: Any, pictures: Array) -> Array:
    """Return the score map of pictures of one size, N x H x W x 3, as torch computes it."""
    with torch.inference_mode():
        result: Array = net.score_map(net.preprocessing(torch.from_numpy(pictures))).numpy()
    return result


def compiled_scores(net: Any, pictures: Array) -> Array | None:
    """Return the same from the native engine; None where it was not built."""
    from verydeep.engines import library

    if library.find() is None:
        return None
    return scores(vd.compile_cpu(net), pictures)


# -- files


def metadata(path: str | Path) -> dict[str, Any]:
    """Return what a Parquet file of ours says of itself, steady."""
    values: dict[str, Any] = _with_run(steady(json.loads((pq.read_schema(path).metadata or {})[b"verydeep"])))
    return values


def _with_run(about: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with what they say of training among the rest, where it stood when the values were made."""
    run = about.pop("run", None)
    if run:
        keys = ("train_scales", "recipe", "trained_layers", *(["best_constant_box"] if "localizer" in about else []))
        about |= {key: run.get(key) for key in keys}
    return about | ({"fused": [_with_run(part) for part in about["fused"]]} if "fused" in about else {})


def columns(path: str | Path) -> dict[str, Any]:
    """Return the columns of a Parquet file: numbers as arrays, lists end to end with their lengths, texts as lists."""
    found: dict[str, Any] = {}
    table = pq.ParquetFile(path).read().combine_chunks()
    for name in table.column_names:
        rows = table[name].to_pylist()
        if rows and isinstance(rows[0], list):
            kind = table.schema.field(name).type.value_type.to_pandas_dtype()
            found[name] = np.array([value for row in rows for value in row], kind)
            found[f"{name} lengths"] = [len(row) for row in rows]
        else:
            found[name] = rows
    return found


def read_posteriors(path: str | Path) -> dict[str, Any]:
    """Read a file of posteriors by the package itself."""
    found = vd.Posteriors.read(Path(path))
    about = {"ids": list(found.ids), "classes": list(found.classes), "labels": found.labels.tolist()}
    return {**about, "posteriors": found.probabilities, "metadata": _with_run(steady(found.metadata))}


def read_boxes(path: str | Path) -> dict[str, Any]:
    """Read a file of boxes by the package itself."""
    from verydeep.localization.detections import Detections

    found = Detections.read(Path(path))
    about = {"ids": list(found.ids), "names": list(found.names), "labels": found.labels.tolist()}
    windows = np.concatenate([rows.reshape(-1, 4) for rows in found.windows])
    return {**about, "classes": found.classes, "boxes": found.boxes, "ratings": found.ratings, "windows": windows}


# -- evaluation


def posteriors(weights: str, data: str, protocols: Words, out: str, *options: object) -> dict[str, Any]:
    """Test a network; return posteriors by protocol, and the errors as the command says them."""
    each = [word for protocol in protocols for word in ("--protocol", protocol)]
    said = report("evaluate", weights, "--data", data, *each, "--out", out, "--engine", "torch", *options)
    found: dict[str, Any] = {"errors": said["results"]}
    for protocol in protocols:
        table = columns(f"{out}/{protocol}.parquet")
        found[f"{protocol} posterior"] = table["posterior"]
        found["ids"], found["labels"] = table["id"], table["label"]
    return found


def fuse(files: Words, *options: object) -> Any:
    return report("fuse", *files, *options)


def predict(weights: str, pictures: Words, *options: object) -> Any:
    return report("predict", *pictures, "--weights", weights, *options)


def prediction(net: Any, picture: str, protocol: str) -> Array:
    """Return a picture's posterior."""
    posterior: Array = vd.predict(net, picture, protocol, engine="torch").posterior
    return posterior


def heat_map(weights: str, picture: str, scale: int, name: str) -> tuple[Array, Array]:
    """Return a class's score map over a picture, and the same spread over its pixels."""
    from verydeep.evaluation.heatmap import class_map, spread
    from verydeep.evaluation.predict import Predictor
    from verydeep.images.files import read_picture
    from verydeep.inference.runtime import Runtime

    forward = Predictor(weights, f"dense@{scale}", runtime=Runtime(engine="torch")).forward
    shown, values = class_map(forward, read_picture(Path(picture)), scale, forward.net.classes.index(name))
    return values, spread(values, *shown.shape[:2], forward.net)


# -- training


def train(*words: object) -> dict[str, Any]:
    """Train, or continue a run; return the figures of its best epoch."""
    found: dict[str, Any] = report("train", *words, "--workers", "1")
    return found


def train_until(step: int, *words: object) -> None:
    """Train, and press Ctrl-C before a step, counted from 1: it is finished, and a checkpoint written."""
    from verydeep.training.step import Stepper

    seen, original = iter(range(1, step + 1)), Stepper.__call__

    def press(stepper: Any, *arguments: Any) -> Any:
        if next(seen) == step:
            signal.raise_signal(signal.SIGINT)
        return original(stepper, *arguments)

    with mock.patch.object(Stepper, "__call__", press):
        try:
            train(*words)
        except RuntimeError as error:
            if "exit status 130" not in str(error):
                raise
        else:
            raise AssertionError("the run was not stopped")


def epochs(run: str | Path) -> list[dict[str, Any]]:
    """Return a run's log, an epoch a line, without times and speeds."""
    lines = (json.loads(line) for line in (Path(run) / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [steady(line) for line in lines if line["kind"] == "epoch"]


def final_weights(run: str | Path) -> dict[str, Array]:
    """Return the weights behind a run's last step."""
    state = torch.load(Path(run) / "last.ckpt", map_location="cpu", weights_only=True)["net"]
    return {name: tensor.numpy() for name, tensor in state.items()}


def best_weights(run: str | Path) -> tuple[int, dict[str, Array]]:
    """Return the epoch of the least validation error, and the weights that were tested and saved then."""
    net = vd.load(Path(run) / "best.safetensors")
    return int(net.provenance.epochs), arrays(net)


def recipe(run: str | Path) -> str:
    """Return a run's effective recipe, without what names data and first weights."""
    text = (Path(run) / "recipe.toml").read_text(encoding="utf-8")
    since = ("communication = ", "milestones = ")  # not yet there when the values were made
    return "\n".join(line for line in text.splitlines() if "sha256" not in line and not line.startswith(since))


# -- localization


def box_file(classifier: str, localizer: str, data: str, protocols: Words, out: str, *options: object) -> Any:
    """Test a localizer, its boxes as files in `out`; return the figures."""
    each = [word for protocol in protocols for word in ("--protocol", protocol)]
    words = ("--task", "localize", "--classifier", classifier, "--data", data, "--out", out, "--engine", "torch")
    return report("evaluate", localizer, *words, *each, *options)


def localize(classifier: str, localizer: str, pictures: Words, *options: object) -> Any:
    words = ("--classifier", classifier, "--localizer", localizer, "--engine", "torch")
    return report("localize", *pictures, *words, *options)


def tune(files: Words, *options: object) -> Any:
    return report("tune", *files, *options)


def merge(boxes: Array, threshold: float, match: str) -> tuple[Array, Array]:
    """Merge boxes; return the merged ones, and which each went into."""
    from verydeep.localization.merging import MergeRule, merge

    return merge(boxes, MergeRule(threshold, match))


# -- descriptors and transfer


def descriptors(weights: str | list[str], pictures: list[str], **settings: Any) -> tuple[Array, list[str]]:
    """Return the descriptors of pictures, and the first and last of their columns' names."""
    describe = vd.Descriptor(weights, engine="torch", **settings)
    names = describe.get_feature_names_out()
    return describe.fit_transform(pictures), [str(names[0]), str(names[-1])]


def features(pictures: Words, weights: Words, out: str, *options: object) -> Any:
    """Write descriptors to a file; return what the command says of it."""
    each = [word for file in weights for word in ("--weights", file)]
    return report("features", *pictures, *each, "--out", out, "--engine", "torch", *options)


def transfer(out: str, *words: object) -> Any:
    """Transfer; return the content of result.json."""
    return report("transfer", "--out", out, *words)


# -- score maps


def score_map(picture: Array | str, weights: str, *, spare: int, **options: Any) -> Any:
    """Compute a picture's score map with `spare` bytes beside what this process holds."""
    from verydeep.basics.memory import resident

    return vd.score_map(picture, weights, memory=resident() + spare, engine="torch", **options)


def level_values(found: Any) -> Iterator[tuple[str, Array]]:
    """Yield a map's scales and values."""
    for level in found.levels:
        yield f"{level.scale:g}", np.asarray(level.values)


def in_bands(found: Any) -> bool:
    """Say whether a map was computed some rows at a time."""
    return all(plan.band < plan.height for plan in found.plans)


def peaks(found: Any, threshold: float) -> list[list[Any]]:
    """Return a map's peaks, the highest first: class, value, scale, x, y, width, height."""
    from verydeep.scoremaps.peaks import find_peaks

    return [list(vars(peak).values()) for peak in find_peaks(found, threshold)]


def read_map(path: str) -> Any:
    return vd.read_map(path)


# -- files of other projects


def convert(source: str | Path, out: str, *options: object) -> Any:
    return report("convert", source, out, *options)


def export(weights: str, form: str, out: str, *options: object) -> Any:
    """Export; return what the command says, without how far it was off: that is rounding."""
    said = report("export", weights, "--format", form, "--out", out, *options)
    return {key: value for key, value in said.items() if key not in ("comparisons", "largest_difference", "engine")}


# -- the rest


def describe(*words: object) -> Any:
    return report("describe", *words)


def tables(folder: str) -> Any:
    return report("tables", folder)


def reproduce(preset: str, data: str, out: str) -> None:
    command("reproduce", "--preset", preset, "--data", data, "--out", out, "--device", "cpu")
