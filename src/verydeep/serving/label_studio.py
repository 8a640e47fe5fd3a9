"""Label Studio's protocol for ML backends: tasks in, pre-annotations out."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from verydeep.datasets.brush import brush_runs
from verydeep.evaluation.predict import Prediction
from verydeep.localization.localize import Found, Localized
from verydeep.segmentation.segment import Segmented
from verydeep.serving.guard import Exchange
from verydeep.serving.models import Model
from verydeep.serving.picture_folder import PictureFolder
from verydeep.serving.refusal import RefusedError

DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
SURE = 0.5
"""Posterior from which on a class is named where an image may have several."""


@dataclass(frozen=True)
class Control:
    """A question about a picture: who asks it, about what, and its answers by the classes that they stand for."""

    name: str
    about: str
    kind: str
    answers: Mapping[str, str]

    def result(self, value: dict[str, Any], score: float | None = None) -> dict[str, Any]:
        """Return an answer as a region of an annotation."""
        region = {"from_name": self.name, "to_name": self.about, "type": self.kind, "value": value}
        return region if score is None else {**region, "score": score}


@dataclass(frozen=True)
class Project:
    """What a project asks: the key that its pictures are found under, and the questions that a network can answer."""

    key: str
    choices: Control | None
    boxes: Control | None
    masks: Control | None

    @property
    def controls(self) -> tuple[Control, ...]:
        return tuple(control for control in (self.choices, self.boxes, self.masks) if control)


def project_of(config: Any, model: Model) -> Project:
    """Return what a labeling configuration asks of a network; RefusedError where the network has no answer to it."""
    root = _parsed(config)
    images = {one.get("name", ""): one.get("value", "").removeprefix("$") for one in root.iter("Image")}
    found = [_control(one, "choices", "Choice", images, model) for one in root.iter("Choices")]
    drawn = [_control(one, "rectanglelabels", "Label", images, model) for one in root.iter("RectangleLabels")]
    brushed = [_control(one, "brushlabels", "Label", images, model) for one in root.iter("BrushLabels")]
    choices, boxes, masks = _one(found), _one(drawn), _one(brushed)
    if choices is None and boxes is None and masks is None:
        raise RefusedError(
            422, "the labeling configuration asks for neither Choices, RectangleLabels nor BrushLabels of an Image"
        )
    if masks and model.segment is None:
        raise RefusedError(422, "BrushLabels need a network for pixels: verydeep train --task segment makes them")
    if choices and model.classify is None:
        raise RefusedError(422, "this network names no classes: it cannot answer Choices")
    if boxes and model.localize is None:
        raise RefusedError(422, "RectangleLabels need a network that draws boxes: start the service with --localizer")
    keys = {images[control.about] for control in (choices, boxes, masks) if control}
    if len(keys) != 1 or not (key := keys.pop()):
        raise RefusedError(422, 'the controls are not about one Image with a value such as value="$image"')
    return Project(key, choices, boxes, masks)


def tasks_of(body: bytes) -> tuple[list[dict[str, Any]], Any]:
    """Return the tasks of a request and its labeling configuration; RefusedError where it is none."""
    request = object_of(body)
    tasks = request.get("tasks")
    fits = isinstance(tasks, list) and all(isinstance(one, dict) and isinstance(one.get("data"), dict) for one in tasks)
    if not isinstance(tasks, list) or not fits:
        raise RefusedError(422, "tasks: expected a list of objects with data")
    return tasks, request.get("label_config")


def object_of(body: bytes) -> dict[str, Any]:
    """Return a JSON object; RefusedError where the body is none."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(422, "the body is no JSON") from None
    if not isinstance(request, dict):
        raise RefusedError(422, "the body is JSON, but no object")
    return request


def picture_in(task: Mapping[str, Any], key: str, folder: PictureFolder | None, exchange: Exchange) -> bytes:
    """Return the bytes of a task's picture, from its own data or from the folder; never from an address."""
    text = task["data"].get(key)
    if not isinstance(text, str) or not text:
        raise RefusedError(422, f"task {_id(task)}: has no picture under data.{key:.80}")
    if start := DATA_URI.match(text):
        exchange.hold(len(text))
        try:
            return base64.b64decode(text[start.end() :], validate=True)
        except ValueError:
            raise RefusedError(422, f"task {_id(task)}: its picture is no base64") from None
    name = _name(text)
    if name is None:
        raise RefusedError(
            422,
            f"task {_id(task)}: {text!r:.120} would have to be fetched, which is never done; "
            "upload pictures to Label Studio or give them as base64",
        )
    if folder is None:
        raise RefusedError(
            422, f"task {_id(task)}: {text!r:.120} is a file; start the service with --pictures, the folder it is in"
        )
    return folder.read(name, exchange)


def annotation(
    project: Project,
    model: Model,
    prediction: Prediction | None,
    located: Localized | None,
    segmented: Segmented | None,
) -> dict[str, Any]:
    """Return a pre-annotation: the regions, and the least posterior among them; masks have none."""
    results = []
    if project.choices and prediction:
        results += _classes(project.choices, prediction, model.net.multi_label)
    if project.boxes and located:
        results += _boxes(project.boxes, located)
    if project.masks and segmented:
        results += _masks(project.masks, segmented)
    score = min((result["score"] for result in results if "score" in result), default=0.0)
    return {"result": results, "score": score, "model_version": version(model)}


def version(model: Model) -> str:
    """Return what a network's pre-annotations are filed under."""
    return model.hash[:16]


def _classes(control: Control, prediction: Prediction, several: bool) -> list[dict[str, Any]]:
    known = [(control.answers[name], value) for name, value in prediction.top if name in control.answers]
    chosen = [(name, value) for name, value in known if value >= SURE] if several else known[:1]
    if not chosen:
        return []
    names, values = zip(*chosen, strict=True)
    return [control.result({"choices": list(names)}, min(values))]


def _boxes(control: Control, located: Localized) -> list[dict[str, Any]]:
    """Return the most probable class's box in percent of the picture's sides, as the protocol writes it."""
    first: Found | None = next((one for one in located.top if one.name in control.answers), None)
    if first is None:
        return []
    (xmin, ymin, xmax, ymax), label = first.box, control.answers[first.name]
    if xmin >= xmax or ymin >= ymax:  # outside of the picture: nothing that anybody could correct
        return []
    across, down = 100 / located.width, 100 / located.height
    corner = {"x": xmin * across, "y": ymin * down, "rotation": 0}
    size = {"width": (xmax - xmin) * across, "height": (ymax - ymin) * down}
    region = control.result({**corner, **size, control.kind: [label]}, first.posterior)
    return [{**region, **_drawn_on(located.width, located.height)}]


def _masks(control: Control, segmented: Segmented) -> list[dict[str, Any]]:
    """Return a mask for each class that there is an answer for."""
    height, width = segmented.labels.shape
    regions = []
    for name in segmented.areas:
        if name in control.answers:
            mask = segmented.labels == segmented.classes.index(name)
            value = {"format": "rle", "rle": brush_runs(mask), control.kind: [control.answers[name]]}
            regions.append({**control.result(value), **_drawn_on(width, height)})
    return regions


def _drawn_on(width: int, height: int) -> dict[str, int]:
    return {"original_width": width, "original_height": height, "image_rotation": 0}


def _parsed(config: Any) -> ElementTree.Element:
    if not isinstance(config, str) or not config.strip():
        raise RefusedError(422, "label_config: expected the project's labeling configuration, XML")
    if "<!" in re.sub(r"<!--.*?-->", "", config, flags=re.DOTALL):
        raise RefusedError(422, "label_config: declarations are not read")
    try:
        return ElementTree.fromstring(config.strip())
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise RefusedError(422, f"label_config: is no valid XML ({error!s:.120})") from None


def _control(
    element: ElementTree.Element, kind: str, answer: str, images: Iterable[str], model: Model
) -> Control | None:
    """Return a question about a picture; None for one about something else."""
    name, about = element.get("name", ""), element.get("toName", "")
    if about not in images:
        return None
    given = {str(one.get("value", "")): str(one.get("alias") or one.get("value", "")) for one in element.iter(answer)}
    named = {alias: alias for alias in given.values()} | given
    answers = {own: named[own] for own in model.net.classes if own in named}
    if not answers:
        theirs, own = (", ".join(list(names)[:3]) for names in (named, model.net.classes))
        raise RefusedError(
            422, f"{name:.80}: none of its labels ({theirs:.120}, ...) is one of the network's ({own:.120}, ...)"
        )
    return Control(name, about, kind, answers)


def _one(controls: Sequence[Control | None]) -> Control | None:
    there = [control for control in controls if control]
    if len(there) > 1:
        names = ", ".join(control.name for control in there)
        raise RefusedError(422, f"several questions could be meant ({names:.120}); the configuration may have one")
    return there[0] if there else None


def _name(text: str) -> str | None:
    """Return the name, below the folder, of what Label Studio calls a picture; None for an address.

    Examples
    --------
    >>> _name("/data/upload/1/1a-cat.jpg"), _name("/data/local-files/?d=set/a%20cat.jpg"), _name("s3://b/cat.jpg")
    ('upload/1/1a-cat.jpg', 'set/a cat.jpg', None)
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        return None
    if parts.path.rstrip("/") == "/data/local-files":
        return parse_qs(parts.query).get("d", [""])[0]
    return unquote(parts.path).removeprefix("/data/") if parts.path.startswith("/data/") else text


def _id(task: Mapping[str, Any]) -> str:
    return str(task.get("id", "?"))[:40]
