"""Labels that are written beside the pictures, in whatever kind of file: records of them become a layout.

A reader of such files yields one `Labeled` for each picture that they name, and `layout_of` does the rest: it finds
the pictures, orders the classes, makes the splits, says what is missing. A new kind of file is a function that yields.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verydeep.basics.errors import BadBoxError, UserError
from verydeep.datasets.annotations import Annotations, Marks, Size
from verydeep.datasets.dataset import Box, Sample
from verydeep.datasets.folder_names import split_of
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.layout import Layout, few, name_of
from verydeep.datasets.storage import Storage

Edges = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax; not yet known to be a box
Objects = tuple[tuple[str, Edges | None], ...]


@dataclass(frozen=True, slots=True)
class Labeled:
    """What a file says of a picture."""

    picture: str  # as it is written there
    objects: Objects  # class and, where it is known, place of each thing to be seen
    file: str  # who says it
    split: str | None = None
    drawn_on: Size | None = None
    nothing: bool = False  # without objects: whether this says that none is to be seen, and not only nothing

    @property
    def several(self) -> bool:
        """Whether it gives several labels, of which none is the largest object's."""
        return len(self.names) > 1 and not all(edges for _, edges in self.objects)

    @property
    def names(self) -> set[str]:
        """The classes of its objects."""
        return {name for name, _ in self.objects}


@dataclass(frozen=True)
class Owned:
    """The picture that each of some files annotates, None where it is not there, and what is doubtful."""

    pictures: dict[str, str | None]
    notes: tuple[str, ...]


class Finder:
    """Finds the pictures that files name: by path, by the end of it, or without the ending."""

    def __init__(self, storage: Storage, pictures: list[str] | None = None) -> None:
        self.pictures = storage.images if pictures is None else pictures
        self.known = frozenset(self.pictures)
        self._by_last: dict[str, list[str]] = {}

    def find(self, name: str, file: str, split: str | None = None) -> str | None:
        """Return the picture that `file` calls `name`; None where there is none, or not one alone."""
        name = unicodedata.normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")
        folder = file.rpartition("/")[0]
        if (beside := f"{folder}/{name}" if folder else name) in self.known:
            return beside
        if name in self.known:
            return name
        if not self._by_last:
            for picture in self.pictures:
                last = picture.rpartition("/")[2]
                for key in {last, last.rpartition(".")[0]} - {""}:
                    self._by_last.setdefault(key, []).append(picture)
        found = self._by_last.get(name.rpartition("/")[2], [])
        parts = name.split("/")
        for first in range(len(parts)):  # the longest end of the name that a picture has
            end = "/".join(parts[first:])
            if fitting := [picture for picture in found if f"/{_bare(picture, end)}".endswith(f"/{end}")]:
                found = fitting
                break
        for prefer in (lambda p: split and _split_of(p) == split, lambda p: p.startswith(f"{folder}/")):
            found = [picture for picture in found if prefer(picture)] or found
        return found[0] if len(found) == 1 else None


def owned(finder: Finder, names: Mapping[str, str]) -> Owned:
    """Return the pictures of files that annotate one each, given what each file itself calls its picture.

    That name counts first, then the file's own; where two files name one picture, a file has the one called as itself.
    """
    by_stem = {file: finder.find(file.rpartition(".")[0], file) for file in names}
    found = {file: (finder.find(name, file) if name else None) or by_stem[file] for file, name in names.items()}
    other = [file for file, picture in found.items() if by_stem[file] not in (None, picture)]
    times = Counter(found.values())
    stale = [file for file in other if times[found[file]] > 1]
    found |= {file: by_stem[file] for file in stale}
    notes = []
    if named := sorted(set(other) - set(stale)):
        words = few(f"{file} names {found[file]}" for file in named)
        notes.append(f"{len(named)} files name another picture than the one beside them, which counts: {words}")
    if stale:
        words = few(f"{file} ({names[file]})" for file in stale)
        notes.append(
            f"{len(stale)} files name a picture that is another file's: the one called as they are counts: {words}"
        )
    twice = [str(picture) for picture, count in Counter(found.values()).items() if count > 1 and picture]
    if twice:
        notes.append(f"{len(twice)} pictures have several files, whose objects are put together: {few(sorted(twice))}")
    return Owned(found, tuple(notes))


def _bare(picture: str, end: str) -> str:
    """Return a picture's name without its ending, where `end`, the end of a name, has none or another."""
    return picture if picture.endswith(end) else picture.rpartition(".")[0]


def _split_of(picture: str) -> str | None:
    return next((split for folder in picture.split("/")[:-1] if (split := split_of(folder))), None)


def layout_of(
    storage: Storage,
    labeled: Iterable[Labeled],
    finder: Finder,
    *,
    choice: LabelChoice = AS_WRITTEN,
    order: Sequence[str] = (),
    bad: Iterable[BadBoxError] = (),
    notes: Sequence[str] = (),
) -> Layout:
    """Return the layout that records describe.

    Where pictures have several labels without boxes, all count; of several boxes a picture has the class of the largest
    one, unless `choice` says otherwise. `order` gives the classes' order where their file has one; else numbers count
    up, and names are sorted. UserError where no picture is there, rows contradict each other, a picture is in two
    splits, or there are fewer than two classes.
    """
    match = _match(labeled, finder, storage, choice)
    found = match.found
    if not found:
        what = f"none of the {len(match.absent)} pictures that are named is there" if match.absent else "no labels"
        raise UserError("; ".join([f"{storage.path}: {what}", *match.notes()]))
    names_of = {name: record.names if match.several else {_class_of(record, storage)} for name, record in found.items()}
    classes = _ordered(set().union(*names_of.values()), order)
    if len(classes) < 2 and all(names_of.values()):
        raise UserError(f"{storage.path}: the labels name one class only ({classes[0]}); expected two or more")
    labels = {name: label for label, name in enumerate(classes)}
    parts: dict[str, list[Sample]] = {}
    for name in sorted(found):
        split = found[name].split or _split_of(name) or "train"
        own = tuple(sorted(labels[each] for each in names_of[name]))
        sample = Sample(name, -1, labels=own) if match.several else Sample(name, own[0])
        parts.setdefault(split, []).append(sample)
    boxes = not match.several and any(edges for record in found.values() for _, edges in record.objects)

    def annotate(samples: Sequence[Sample]) -> Annotations:
        return _annotations(samples, found, classes, storage)

    return Layout(
        name_of(storage),
        classes,
        parts,
        storage,
        notes=(*notes, *match.notes(), *match.unlabeled(finder)),
        bad_boxes=(*bad, *match.faults.values()),
        annotate=annotate if boxes else None,
    )


@dataclass(frozen=True)
class _Match:
    """Records with the pictures that they are of, and those that are of none."""

    several: bool  # whether a picture may have several labels
    found: dict[str, Labeled]
    faults: dict[str, BadBoxError]  # of pictures whose largest object is therefore unknown
    absent: list[str]
    empty: int

    def notes(self) -> list[str]:
        """Return what was found, and what is wrong."""
        notes = []
        if self.found:
            notes.append(f"labels are those of {few(sorted({record.file for record in self.found.values()}))}")
        if self.several:
            notes.append("images may have several labels, or none")
        elif any(len(record.names) > 1 for record in self.found.values()):
            notes.append("images have the class of their largest object")
        if self.faults:
            first = few(map(str, self.faults.values()), 1)
            notes.append(f"{len(self.faults)} pictures with a bad box are left out: {first}")
        if self.absent:
            count = len(self.absent)
            notes.append(f"{count} pictures that are named are not there, or not there once: {few(self.absent, 10)}")
        return notes

    def unlabeled(self, finder: Finder) -> list[str]:
        """Return how many pictures there are without a label."""
        rest = len(finder.known) - len(self.found) - len(self.faults) - self.empty
        named = [f"{self.empty} pictures are named without a label: not used"] if self.empty else []
        return [*named, *([f"{rest} pictures have no label: not used"] if rest > 0 else [])]


def _match(labeled: Iterable[Labeled], finder: Finder, storage: Storage, choice: LabelChoice) -> _Match:
    found: dict[str, Labeled] = {}
    without: dict[str, Labeled] = {}  # that say that nothing is to be seen
    absent: list[str] = []
    empty, stated = 0, False
    for record in labeled:
        name = finder.find(record.picture, record.file, record.split)
        if name is None:
            absent.append(record.picture)
        elif not record.objects:
            empty += 1
            if record.nothing:
                without[name] = record
        else:
            stated |= record.several
            found[name] = _merged(found[name], record, storage) if name in found else record
    several = _several(found, stated, choice, storage)
    if several:
        without = {name: record for name, record in without.items() if name not in found}
        return _Match(True, found | without, {}, absent, empty - len(without))
    faults = {n: said for n, record in found.items() if len(record.names) > 1 and (said := _fault(record, storage))}
    return _Match(False, {name: record for name, record in found.items() if name not in faults}, faults, absent, empty)


def _several(found: dict[str, Labeled], stated: bool, choice: LabelChoice, storage: Storage) -> bool:
    """Say whether pictures may have several labels: as the user says, or where a record gives several at once.

    UserError where only different rows do, which may be a mistake.
    """
    if choice.several is not None or stated:
        return stated if choice.several is None else choice.several
    unclear = [record for record in found.values() if record.several]
    if unclear:
        first = unclear[0]
        raise UserError(
            f"{storage.where(first.file)}: {len(unclear)} pictures have rows with different labels ({first.picture}: "
            f"{few(sorted(first.names))}); say --labels several if all of them are meant, else keep one row of each"
        )
    return False


def _merged(first: Labeled, second: Labeled, storage: Storage) -> Labeled:
    """Return what two records say of one picture: rows of a table are objects of it."""
    if (first.split or "") != (second.split or ""):
        raise UserError(
            f"{storage.path}: {first.picture} is in {first.split} ({first.file}) and {second.split} ({second.file}); "
            "what is tested must not be trained on"
        )
    objects = tuple(dict.fromkeys((*first.objects, *second.objects)))
    return Labeled(first.picture, objects, first.file, first.split, first.drawn_on)


def _class_of(record: Labeled, storage: Storage) -> str:
    if record.several:
        raise UserError(
            f"{storage.where(record.file)}: {record.picture} has several labels ({few(sorted(record.names))}), and "
            "--labels one allows one: keep one of each, or say --labels several"
        )
    return max(record.objects, key=lambda each: _area(each[1]))[0]


def _fault(record: Labeled, storage: Storage) -> BadBoxError | None:
    where = f"{storage.where(record.file)}, {record.picture}"
    try:
        for _, edges in record.objects:
            if edges:
                check_edges(edges, where)
    except BadBoxError as error:
        return error
    return None


def _area(edges: Edges | None) -> float:
    area = max(0.0, edges[2] - edges[0]) * max(0.0, edges[3] - edges[1]) if edges else 0.0
    return area if math.isfinite(area) else 0.0


def _ordered(names: set[str], order: Sequence[str]) -> tuple[str, ...]:
    if order:
        return tuple(name for name in dict.fromkeys(order) if name in names)
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _annotations(
    samples: Sequence[Sample], found: dict[str, Labeled], classes: Sequence[str], storage: Storage
) -> Annotations:
    marks: dict[str, Marks] = {}
    bad: list[BadBoxError] = []
    for sample in samples:
        record = found[sample.id]
        own = [edges for name, edges in record.objects if edges and name == classes[sample.label]]
        if error := _fault(record, storage):
            bad.append(BadBoxError(error.name, error.reason, sample.id))
        elif own:
            where = f"{storage.where(record.file)}, {record.picture}"
            marks[sample.id] = Marks(tuple(Box(*edges) for edges in own), record.drawn_on, where)
    return Annotations(marks, tuple(bad))


NAME_LISTS = re.compile(r"(?:.*/)?(?:classes|class_?names|labels|obj|[^/]*\.names)(?:\.txt|\.names)?", re.IGNORECASE)


def class_names(storage: Storage) -> list[str]:
    """Return the classes' names in the order of their numbers: of `names` in a YAML file, or of a list; [] if none."""
    for file in sorted(storage.ending("yaml", "yml", "txt", "names"), key=lambda name: (name.count("/"), name)):
        if file.endswith("ml"):
            if names := _yaml_names(storage.text(file)):
                return names
        elif NAME_LISTS.fullmatch(file):
            return [line.strip() for line in storage.text(file).splitlines() if line.strip()]
    return []


def _yaml_names(text: str) -> list[str]:
    """Return `names: [a, b]`, or lines of `- a` or `0: a` below `names:`."""
    found = re.search(r"^names:[ \t]*(\[[^\]]*\]|\{[^}]*\}|(?:[ \t]*(?:#.*)?\n(?:[ \t]+|-).*)+)", text, re.MULTILINE)
    if not found:
        return []
    entries = re.split(r",|\n", found[1].strip("[]{}"))
    names = [re.sub(r"^\s*(?:-\s+|\d+\s*:\s*)?|\s+#.*$|\s+$", "", entry) for entry in entries]
    return [name.strip("\"'") for name in names if name]


def check_edges(edges: Edges, where: str) -> None:
    """Raise BadBoxError where edges are those of no box."""
    words = " ".join(f"{edge:g}" for edge in edges)
    if not all(map(math.isfinite, edges)):
        raise BadBoxError(where, f"box {words} is not finite")
    if edges[2] <= edges[0] or edges[3] <= edges[1]:
        raise BadBoxError(where, f"box {words} has no area")


def corners(box: Sequence[object]) -> Edges:
    """Return the edges of a box that is written as left, top, width, height."""
    x, y, width, height = map(number, (*box, None, None, None, None)[:4])
    return x, y, x + width, y + height


def around(xs: Sequence[object], ys: Sequence[object]) -> Edges:
    """Return the edges of the box around points; NaN where there are none, or some are no numbers."""
    x, y = [number(value) for value in xs], [number(value) for value in ys]
    if not x or not y or any(map(math.isnan, (*x, *y))):
        return math.nan, math.nan, math.nan, math.nan
    return min(x), min(y), max(x), max(y)


def number(value: object) -> float:
    """Return a number of a file of others, NaN where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
