"""A transfer's result for people: in words, and as one HTML page that holds everything it shows."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix

from verydeep.basics.files import write_text
from verydeep.basics.formatting import markup
from verydeep.basics.rng import generator
from verydeep.evaluation.metrics import Mean, confidences
from verydeep.inference.combine import Rows
from verydeep.transfer import charts
from verydeep.transfer.data import Data
from verydeep.transfer.work import Outcome

PAGE = Path(__file__).parent / "report.html"
EXAMPLES, NEIGHBORS = 8, 5
MISTAKES = 12
HEIGHT = 96  # px of a picture


def files_in_words(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each network's file with what it is and how it was tested, and its metric."""
    several = len(result["systems"][0]["splits"]) > 1
    found = []
    for made in result["deployed"]:
        about = [made["system"]] if "system" in made else []  # folders of before name none
        about += [made["split"]] if several and "split" in made else []
        found.append((f"{made['file']} ({', '.join([*about, made['protocol']])})", made))
    return found


def warnings(result: dict[str, Any]) -> list[str]:
    """Return what a reader must know: duplicates, unequal classes, images left out, why there is no network."""
    found = []
    for split in result["duplicates"]:
        if split["test_images"]:
            same = "; ".join(f"{test} = {train}" for test, train in split["examples"][:2])
            found.append(
                f"{split['split']}: {split['test_images']} test images are among the training images, too, byte for "
                f"byte ({same})"
            )
    least, most = result["imbalance"]["least"], result["imbalance"]["most"]
    if most[1] > least[1]:
        treated = "all classes count the same" if result["imbalance"]["weighted"] else "images all count the same"
        found.append(f"{least[1]} ({least[0]}) to {most[1]} ({most[0]}) training images a class; {treated}")
    if result["left_out"]:
        count = len(result["left_out"])
        found.append(f"{count} damaged image{'s' if count > 1 else ''} left out")
    if not result["deployed"]:
        why = result.get("no_network") or "an earlier version wrote this folder; another --out may get one"
        found.append(f"no network, no file: {why}")
    return found


def splits_in_words(splits: list[dict[str, Any]]) -> str:
    """Return how many splits there are, and how many images the first one has for what."""
    first = splits[0]
    return (
        f"{len(splits)} split{'s' if len(splits) > 1 else ''} of {first['train']} images to train on, "
        f"{first['validation']} to choose C on, {first['test']} to test on"
    )


def write_report(path: Path, data: Data, rows: Rows, outcome: Outcome, result: dict[str, Any]) -> None:
    """Write the page from what `result.json` will hold; its pictures and charts are of the first split's outcome."""
    identity = result["identity"]
    parts = {
        "title": markup(f"{identity['data']} by {result['name']}"),
        "subtitle": markup(
            f"Protocol {identity['protocol']}: {splits_in_words(result['systems'][0]['splits'])}. "
            f"{result['data_provenance']}"
        ),
        "table": _table(result),
        "notes": "".join(f"<p class='note'>{markup(text)}</p>" for text in warnings(result)),
        "sections": "".join(f"<h2>{title}</h2>{body}" for title, body in _sections(data, rows, outcome) if body),
        "made": "".join(
            f"<tr><td>{markup(key.replace('_', ' '))}</td><td>{markup(_short(value))}</td></tr>"
            for key, value in identity.items()
            if value is not None
        ),
        "machine": markup(", ".join(f"{key} {value}" for key, value in result["machine"].items())),
    }
    write_text(path, Template(PAGE.read_text(encoding="utf-8")).substitute(parts))


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _table(result: dict[str, Any]) -> str:
    """Return the systems: as the protocol has them, as deployed, and what they are compared with."""
    rows = [(system["name"], str(Mean(system["merit"], system["std"]))) for system in result["systems"]]
    rows += [(words, str(Mean(made["merit"]))) for words, made in files_in_words(result)]
    if found := result["compared"]:
        recipe = f", recipe {found['recipe']}" if found["recipe"] else ""
        rows.append((f"{found['weights']}{recipe}, {found['protocol']}", str(Mean(found["merit"]))))
    body = "".join(f"<tr><td>{markup(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f"<table><tr><th>system</th><th>{result['measure']}, %</th></tr>{body}</table>"


def _sections(data: Data, rows: Rows, outcome: Outcome) -> list[tuple[str, str]]:
    """Return headings and what stands below them."""
    classes, test, metrics = data.classes, outcome.split.test, outcome.metrics
    targets, posteriors, error = data.targets[test], outcome.posteriors, metrics["calibration_error"]
    mistaken = targets < 0
    if outcome.chosen.linear.multi_label:
        counted = targets != 0
        about = f"Of every class in every image; expected calibration error {error:.1%}."
        reliability = charts.reliability(posteriors[counted], targets[counted] > 0)
        each = [
            ("Average precision of each class", charts.bars(metrics["ap_all_points"], classes, "average precision"))
        ]
        drawn = test[(targets > 0).any(axis=1)]
        colored = "<p class='note'>An image of several classes has the color of the first.</p>"
    else:
        labels, predicted = data.labels[test], posteriors.argmax(axis=1)
        mistaken &= np.arange(len(classes)) == predicted[:, None]
        about = f"Of the guesses; expected calibration error {error:.1%}; the numbers are images."
        reliability = charts.reliability(*confidences(labels, posteriors))
        counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
        each = [
            ("Recall of each class", charts.bars(metrics["class_recall"], classes, "recall")),
            ("Confusion", _confusions(counts, classes) + charts.confusion(counts, classes)),
        ]
        drawn, colored = test, ""
    plane = charts.descriptor_map(rows[drawn], data.labels[drawn], classes)
    return [
        ("The surest mistakes", _mistakes(data, outcome, mistaken)),
        ("Nearest neighbors among the training images", _neighbors(data, rows, outcome)),
        *each,
        ("Are the posteriors honest?", f"{reliability}<p class='note'>{about}</p>"),
        ("The descriptors in the plane (t-SNE)", plane + colored),
    ]


def _mistakes(data: Data, outcome: Outcome, mistaken: NDArray[np.bool_]) -> str:
    """Return the pictures with the surest of the statements, test images x classes, that are mistaken."""
    surest = np.argsort(np.where(mistaken, -outcome.posteriors, 1), axis=None)[: min(MISTAKES, mistaken.sum())]
    shown = []
    for i, k in zip(*np.unravel_index(surest, mistaken.shape), strict=True):
        image = int(outcome.split.test[i])
        truth = "is not there" if outcome.chosen.linear.multi_label else f"is {_name(data.classes[data.labels[image]])}"
        said = f"<span class='wrong'>{_name(data.classes[k])}</span> {outcome.posteriors[i, k]:.0%}"
        shown.append((image, f"{said}, {truth}"))
    return _pictures(data, shown)


def _confusions(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the classes most often taken for one certain other, by the share of their images."""
    images = counts.sum(axis=1)
    shares = np.where(np.eye(len(classes), dtype=bool), 0, counts / np.maximum(images[:, None], 1))
    lines = ""
    for k, j in zip(*np.unravel_index(np.argsort(-shares, axis=None)[:EXAMPLES], shares.shape), strict=True):
        if shares[k, j] > 0:
            share = f"{shares[k, j]:.0%} ({counts[k, j]} of {images[k]})"
            lines += f"<tr><td>{_name(classes[k])}</td><td>{_name(classes[j])}</td><td>{share}</td></tr>"
    head = "<tr><th>class</th><th>most often taken for</th><th>images</th></tr>"
    return f"<div class='scroll'><table>{head}{lines}</table></div>" if lines else ""


def _neighbors(data: Data, rows: Rows, outcome: Outcome) -> str:
    """Return test pictures drawn by chance, and beside each the training pictures of the most alike descriptors."""
    train = outcome.split.known
    known = rows[train] / np.maximum(np.linalg.norm(rows[train], axis=1, keepdims=True), 1e-12)
    lines = []
    for i in generator(0).permutation(outcome.split.test)[:EXAMPLES].tolist():
        alike = known @ rows[i] / max(float(np.linalg.norm(rows[i])), 1e-12)
        nearest = np.argsort(-alike)[:NEIGHBORS]
        own = set(_classes(data, i))
        shown = [(i, ", ".join(map(_name, sorted(own))))]
        for j in nearest.tolist():
            names = _classes(data, int(train[j]))
            kind = "right" if own & set(names) else "wrong"
            words = ", ".join(map(_name, names))
            shown.append((int(train[j]), f"<span class='{kind}'>{words}</span> {alike[j]:.2f}"))
        lines.append(f"<div class='row'>{_pictures(data, shown)}</div>")
    note = "<p class='note'>Drawn by chance; the numbers are cosines between descriptors.</p>"
    return note + "".join(lines)


def _classes(data: Data, index: int) -> list[str]:
    return [data.classes[k] for k in np.flatnonzero(data.targets[index] > 0).tolist()]


def _pictures(data: Data, shown: Sequence[tuple[int, str]]) -> str:
    """Return pictures with their captions, which are HTML."""
    figures = "".join(
        f"<figure><img alt='{markup(data.ids[i])}' src='{_thumbnail(data, i)}'>"
        f"<figcaption>{words}</figcaption></figure>"
        for i, words in shown
    )
    return f"<div class='pictures'>{figures}</div>" if figures else ""


def _thumbnail(data: Data, index: int) -> str:
    picture = Image.fromarray(data.dataset.image(index))
    picture.thumbnail((3 * HEIGHT, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _name(text: str) -> str:
    return markup(text.replace("_", " "))
