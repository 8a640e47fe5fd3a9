"""The report of a transfer: one HTML page that holds everything it shows."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verydeep.basics.files import write_text
from verydeep.basics.rng import generator
from verydeep.evaluation.metrics import Mean, confidences
from verydeep.transfer import charts
from verydeep.transfer.collection import Collection
from verydeep.transfer.store import Rows
from verydeep.transfer.words import files_in_words, splits_in_words, warnings
from verydeep.transfer.work import Outcome

PAGE = Path(__file__).parent / "report.html"
EXAMPLES, NEIGHBORS = 8, 5
MISTAKES = 12
HEIGHT = 96  # px of a picture


def write_report(
    path: Path, collection: Collection, rows: Rows, outcome: Outcome, multi_label: bool, result: dict[str, Any]
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
        Where to.
    collection : Collection
        The pictures.
    rows : ndarray of float32, shape (N, D)
        Descriptors of all of them.
    outcome : Outcome
        Of the first split, which the pictures and charts are of.
    multi_label : bool
        Whether a picture may have several classes.
    result : dict
        What `result.json` will hold.
    """
    identity = result["identity"]
    sections = (_several if multi_label else _one)(collection, rows, outcome)
    notes = "".join(f"<p class='note'>{html.escape(text)}</p>" for text in warnings(result))
    parts = {
        "title": html.escape(f"{identity['data']} by {result['name']}"),
        "subtitle": html.escape(
            f"Protocol {identity['protocol']}: {splits_in_words(result['systems'][0]['splits'])}. "
            f"{result['data_provenance']}"
        ),
        "table": _table(result),
        "notes": notes,
        "sections": "".join(f"<h2>{title}</h2>{body}" for title, body in sections if body),
        "made": "".join(
            f"<tr><td>{html.escape(key.replace('_', ' '))}</td><td>{html.escape(_short(value))}</td></tr>"
            for key, value in identity.items()
            if value is not None
        ),
        "machine": html.escape(", ".join(f"{key} {value}" for key, value in result["machine"].items())),
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
    body = "".join(f"<tr><td>{html.escape(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f"<table><tr><th>system</th><th>{result['measure']}, %</th></tr>{body}</table>"


def _one(collection: Collection, rows: Rows, outcome: Outcome) -> list[tuple[str, str]]:
    """Return the sections where every picture has one class."""
    test, classes = outcome.split.test, collection.classes
    labels, guesses = collection.labels[test], outcome.scores.argmax(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    worst = wrong[np.argsort(-outcome.posteriors[wrong, guesses[wrong]])][:MISTAKES]
    mistakes = [
        (
            int(test[i]),
            f"<span class='wrong'>{_name(classes[guesses[i]])}</span> "
            f"{outcome.posteriors[i, guesses[i]]:.0%}, is {_name(classes[labels[i]])}",
        )
        for i in worst
    ]
    error = outcome.figures["calibration_error"]
    honest = f"<p class='note'>Of the guesses; expected calibration error {error:.1%}; the numbers are images.</p>"
    return [
        ("The surest mistakes", _pictures(collection, mistakes)),
        ("Nearest neighbors among the training images", _neighbors(collection, rows, outcome)),
        ("Recall of each class", charts.bars(outcome.figures["class_recall"], classes, "recall")),
        ("Confusion", _confusions(labels, guesses, classes) + charts.confusion(labels, guesses, classes)),
        ("Are the posteriors honest?", charts.reliability(*confidences(labels, outcome.posteriors)) + honest),
        ("The descriptors in the plane (t-SNE)", charts.descriptor_map(rows[test], labels, classes)),
    ]


def _several(collection: Collection, rows: Rows, outcome: Outcome) -> list[tuple[str, str]]:
    """Return the sections where a picture may have several classes."""
    classes, test = collection.classes, outcome.split.test
    without = np.where(collection.targets[test] < 0, outcome.posteriors, -1)
    flat = np.argsort(-without, axis=None)[:MISTAKES]
    mistakes = [
        (int(test[i]), f"<span class='wrong'>{_name(classes[k])}</span> {outcome.posteriors[i, k]:.0%}, is not there")
        for i, k in zip(*np.unravel_index(flat, without.shape), strict=True)
        if without[i, k] >= 0
    ]
    counted, labeled = collection.targets[test] != 0, test[(collection.targets[test] > 0).any(axis=1)]
    error = outcome.figures["calibration_error"]
    honest = f"<p class='note'>Of every class in every image; expected calibration error {error:.1%}.</p>"
    colored = "<p class='note'>An image of several classes has the color of the first.</p>"
    return [
        ("The surest mistakes", _pictures(collection, mistakes)),
        ("Nearest neighbors among the training images", _neighbors(collection, rows, outcome)),
        (
            "Average precision of each class",
            charts.bars(outcome.figures["ap_all_points"], classes, "average precision"),
        ),
        (
            "Are the posteriors honest?",
            charts.reliability(outcome.posteriors[counted], collection.targets[test][counted] > 0) + honest,
        ),
        (
            "The descriptors in the plane (t-SNE)",
            charts.descriptor_map(rows[labeled], collection.labels[labeled], classes) + colored,
        ),
    ]


def _confusions(labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the classes most often taken for one certain other, by the share of their images."""
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (labels, guesses), 1)
    images = counts.sum(axis=1)
    shares = np.where(np.eye(len(classes), dtype=bool), 0, counts / np.maximum(images[:, None], 1))
    lines = ""
    for k, guess in zip(*np.unravel_index(np.argsort(-shares, axis=None)[:EXAMPLES], shares.shape), strict=True):
        if shares[k, guess] > 0:
            share = f"{shares[k, guess]:.0%} ({counts[k, guess]} of {images[k]})"
            lines += f"<tr><td>{_name(classes[k])}</td><td>{_name(classes[guess])}</td><td>{share}</td></tr>"
    head = "<tr><th>class</th><th>most often taken for</th><th>images</th></tr>"
    return f"<div class='scroll'><table>{head}{lines}</table></div>" if lines else ""


def _neighbors(collection: Collection, rows: Rows, outcome: Outcome) -> str:
    """Return test pictures drawn by chance, and beside each the training pictures of the most alike descriptors."""
    test, train = outcome.split.test, np.concatenate([outcome.split.train, outcome.split.validation])
    chosen = generator(0).permutation(test)[:EXAMPLES]
    known = rows[train] / np.maximum(np.linalg.norm(rows[train], axis=1, keepdims=True), 1e-12)
    lines = []
    for i in chosen.tolist():
        alike = known @ rows[i] / max(float(np.linalg.norm(rows[i])), 1e-12)
        nearest = np.argsort(-alike)[:NEIGHBORS]
        own = set(_classes(collection, i))
        shown = [(i, ", ".join(map(_name, sorted(own))))]
        for j in nearest.tolist():
            names = _classes(collection, int(train[j]))
            kind = "right" if own & set(names) else "wrong"
            words = ", ".join(map(_name, names))
            shown.append((int(train[j]), f"<span class='{kind}'>{words}</span> {alike[j]:.2f}"))
        lines.append(f"<div class='row'>{_pictures(collection, shown)}</div>")
    note = "<p class='note'>Drawn by chance; the numbers are cosines between descriptors.</p>"
    return note + "".join(lines)


def _classes(collection: Collection, index: int) -> list[str]:
    return [collection.classes[k] for k in np.flatnonzero(collection.targets[index] > 0).tolist()]


def _pictures(collection: Collection, shown: Sequence[tuple[int, str]]) -> str:
    """Return pictures with their captions, which are HTML."""
    figures = "".join(
        f"<figure><img alt='{html.escape(collection.ids[i], quote=True)}' src='{_thumbnail(collection, i)}'>"
        f"<figcaption>{words}</figcaption></figure>"
        for i, words in shown
    )
    return f"<div class='pictures'>{figures}</div>" if figures else ""


def _thumbnail(collection: Collection, index: int) -> str:
    picture = Image.fromarray(collection.dataset.image(index))
    picture.thumbnail((3 * HEIGHT, HEIGHT))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _name(text: str) -> str:
    return html.escape(text.replace("_", " "))
