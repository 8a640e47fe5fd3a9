"""Reader of Label Studio's JSON exports, full or minimal: choices, and rectangles with labels."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from verydeep.basics.errors import UserError
from verydeep.datasets.annotations import Size
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, layout_of, number
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.storage import Storage

KEYS = re.compile(rb'"(?:annotations|completions|annotation_id|annotator|lead_time|rectanglelabels)"\s*:')
UPLOAD = re.compile(r"^[0-9a-f]{6,}-")  # what Label Studio puts before the name of a file that it was given
Objects = list[tuple[str, Edges | None]]


def matches(storage: Storage) -> bool:
    """Say whether there is a JSON list of tasks."""
    return bool(files(storage))


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read every export, or that of `--reader label-studio:FILE`; of several annotations of a picture the first."""
    finder = Finder(storage)
    chosen = [options] if options in storage.files else files(storage)
    return layout_of(
        storage, (record for file in chosen for record in _labeled(storage, file, finder)), finder, choice=choice
    )


def files(storage: Storage) -> list[str]:
    """Return the names of the exports."""
    found = []
    for name in storage.outermost("json"):
        head = storage.files[name].read(1 << 16)
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[") and KEYS.search(head):
            found.append(name)
    return found


def _labeled(storage: Storage, file: str, finder: Finder) -> Iterator[Labeled]:
    for task in storage.json(file):
        try:
            named = picture(task, finder, file)
            size, objects = _full(task, storage.where(file)) if "data" in task else _minimal(task)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"{storage.where(file)}: is not as Label Studio writes it ({what})") from None
        yield Labeled(named, tuple(objects), file, None, size)


def picture(task: dict[str, Any], finder: Finder, file: str) -> str:
    """Return the name of a task's picture: `/data/upload/1/1a2b3c4d-cat.jpg`, `/data/local-files/?d=set/cat.jpg`."""
    values = task.get("data", task)
    texts = [text for text in values.values() if isinstance(text, str)]
    texts = [*(values[key] for key in ("image", "img", "picture") if isinstance(values.get(key), str)), *texts]
    names = []
    for text in texts:
        parts = urlsplit(text)
        path = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
        folder, slash, last = path.rpartition("/")
        names += [path.lstrip("/"), f"{folder}{slash}{UPLOAD.sub('', last)}".lstrip("/")]
    return next((name for name in names if finder.find(name, file)), names[-1] if len(names) == 2 else names[0])


def results(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a task's first annotation says, of those that were not cancelled."""
    done = [each for each in task.get("annotations", task.get("completions", [])) if not each.get("was_cancelled")]
    return done[0]["result"] if done else []


def _full(task: dict[str, Any], where: str) -> tuple[Size | None, Objects]:
    size, objects = None, Objects()
    questions: dict[str, None] = {}
    for result in results(task):
        value = result["value"]
        if "choices" in value:
            questions[str(result.get("from_name"))] = None
            objects += [(str(name), None) for name in value["choices"]]
        elif names := value.get("rectanglelabels"):
            questions[str(result.get("from_name"))] = None
            size = size_of(result)
            objects += [(str(name), _edges(value, size)) for name in names]
    if len(questions) > 1 and any(not edges for _, edges in objects) and len({name for name, _ in objects}) > 1:
        raise UserError(
            f"{where}: a task answers several questions ({few(questions)}), which are different kinds of labels; "
            "export the answers to one"
        )
    return size, objects


def _minimal(task: dict[str, Any]) -> tuple[Size | None, Objects]:
    size, objects = None, Objects()
    for value in task.values():
        for each in value if isinstance(value, list) else []:
            if isinstance(each, dict) and "rectanglelabels" in each:
                size = size_of(each)
                objects += [(str(name), _edges(each, size)) for name in each["rectanglelabels"]]
    if objects:
        return size, objects
    choice: Any = next((task[key] for key in ("choice", "choices", "label", "class") if key in task), [])
    names = choice.get("choices", []) if isinstance(choice, dict) else choice
    return None, [(str(name), None) for name in ([names] if isinstance(names, str) else names)]


def size_of(entry: dict[str, Any]) -> Size:
    """Return height and width of the picture that a result is of."""
    return int(entry["original_height"]), int(entry["original_width"])


def _edges(value: dict[str, Any], size: Size) -> Edges:
    """Return a rectangle, kept in percent of the picture's sides; one that is turned is no box."""
    x, y, width, height = (number(value[key]) / 100 for key in ("x", "y", "width", "height"))
    if value.get("rotation"):
        width = float("nan")
    return x * size[1], y * size[0], (x + width) * size[1], (y + height) * size[0]
