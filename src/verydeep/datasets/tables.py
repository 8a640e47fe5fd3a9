"""Reader of tables that name pictures and their labels: CSV, TSV, JSON lines, Parquet, lists; Kaggle's, Hugging Face's.

The columns are found by their names and by whether the pictures that they name are there. `--reader
table:FILE:PICTURES:LABELS` says them, each of which may be left empty.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets import class_folders
from verydeep.datasets.annotations import RELATIVE, Size
from verydeep.datasets.folder_names import split_in, split_of
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice, names_in
from verydeep.datasets.labels import Finder, Labeled, Objects, corners, layout_of, number
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.parquet_pictures import pictures_inside
from verydeep.datasets.storage import Storage
from verydeep.datasets.table_files import LOOKED_AT, OBJECTS, SUFFIXES, Table, read_table

# Columns by their names, in lower case without what is between words; the likeliest first.
_PICTURES = """filename file filepath filepaths path paths imagepath imgpath imagefile image imagename imageid imgname
imgid img picture photo name id fname uri url"""
_LABELS = """label labels class classes classname classid category categories categoryname categoryid labelname labelid
target targets species breed diagnosis dx finding findinglabels tag tags y"""
PICTURES, LABELS = tuple(_PICTURES.split()), tuple(_LABELS.split())
SPLITS = ("split", "set", "subset", "partition", "phase", "datasplit", "dataset", "usage")
FLAGS = ({"0", "1", "0.0", "1.0"}, {"-1", "1", "-1.0", "1.0"}, {"false", "true"})
UNSURE = frozenset({"0", "1", "-1", "", "nan", "None"})
EDGES = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))


@dataclass(frozen=True)
class Plan:
    """Which columns of a table say what; several label columns are one for each class, 1 where the picture is of it."""

    table: Table
    pictures: str
    labels: tuple[str, ...]
    by_name: bool  # whether the labels' column bears such a name

    @property
    def split(self) -> str | None:
        """The split of all its rows, where its name or its folder's says one."""
        return split_in(self.table.file)


def matches(storage: Storage) -> bool:
    """Say whether a table has labels for the pictures, and no class folders have them.

    UserError where both have, and mean different things.
    """
    names = _candidates(storage)
    if not names:
        return False
    if pictures_inside(storage):
        return True
    finder = Finder(storage)
    try:
        folders = class_folders.read(storage)
    except UserError:
        return bool(_plans(storage, names, finder))
    try:
        plans = [plan for plan in _plans(storage, names, finder) if plan.by_name]
    except UserError:  # a table of something else
        return False
    label_of = {sample.id: folders.classes[sample.label] for part in folders.parts.values() for sample in part}
    for plan in plans:
        if not _agrees(plan, label_of, finder):
            raise UserError(
                f"{storage.path}: {plan.table.file} (column {plan.labels[0]}) and the folders ({few(folders.classes)}) "
                f"name different classes; say --reader {_words(plan)} or --reader class-folders"
            )
    return len(folders.parts) == 1 and len({plan.split for plan in plans}) > 1  # tables of splits that folders have not


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read the tables that have labels; UserError where it is not clear which, or which of their columns."""
    file, pictures, labels = (*options.split(":"), "", "", "")[:3]
    if file and file not in storage.files:
        raise UserError(f"{storage.path}: has no table {file}; it has {few(_candidates(storage), 10) or 'none'}")
    inside = pictures_inside(storage)
    storage, finder = (
        (inside.storage, Finder(inside.storage, inside.pictures)) if inside else (storage, Finder(storage))
    )
    files = [file] if file else inside.files if inside else _candidates(storage)
    plans = _plans(storage, files, finder, pictures, labels)
    if not plans:
        raise UserError(
            f"{storage.path}: no table names pictures that are there and their labels; expected columns such as "
            "file_name,label, or --reader table:FILE:PICTURES:LABELS with your columns' names"
        )
    by_split: dict[str | None, Plan] = {}
    for plan in plans:
        other = by_split.setdefault(plan.split, plan)
        if other is plan or (inside and _are_shards(plan, other)):
            continue
        if inside:
            raise UserError(
                f"{storage.path}: {other.table.file} and {plan.table.file} are of the same split, but no parts of one "
                "table; give the folder of one of them as --data, or say its columns: --reader table::PICTURES:LABELS"
            )
        both = f"{other.table.file} and {plan.table.file} both have labels"
        raise UserError(f"{storage.path}: {both}; say --reader {_words(other)} or --reader {_words(plan)}")
    notes = [f"read as {few(map(_words, plans))}", *(inside.notes if inside else [])]
    separator = _separator(plans, choice, storage)
    order = _order(plans)
    return layout_of(storage, _labeled(plans, separator), finder, choice=choice, order=order, notes=notes)


def _order(plans: Sequence[Plan]) -> Sequence[str]:
    """Return the classes' order where the tables' files say one, the same in all."""
    orders = {plan.table.classes.get(plan.labels[0], ()) for plan in plans}
    return orders.pop() if len(orders) == 1 else ()


def _are_shards(plan: Plan, other: Plan) -> bool:
    """Say whether two files are parts of one table: alike but for numbers in their names, with the same columns."""
    names = {re.sub(r"\d+", "", each.table.file) for each in (plan, other)}
    return len(names) == 1 and (plan.pictures, plan.labels) == (other.pictures, other.labels)


def _separator(plans: Sequence[Plan], choice: LabelChoice, storage: Storage) -> str:
    """Return what stands between labels, the same in the tables of all splits."""
    columns = [plan.table.columns[plan.labels[0]] for plan in plans if len(plan.labels) == 1]
    where = few(f"{storage.where(plan.table.file)}, column {plan.labels[0]}" for plan in plans)
    return choice.separator_of((cell for column in columns for cell in column), where)


def _words(plan: Plan) -> str:
    return ":".join(["table", plan.table.file, plan.pictures, *(plan.labels if len(plan.labels) == 1 else [])])


def _candidates(storage: Storage) -> list[str]:
    return [name for name in storage.outermost(*SUFFIXES) if "submission" not in name.lower()]


def _plans(storage: Storage, names: list[str], finder: Finder, pictures: str = "", labels: str = "") -> list[Plan]:
    plans = []
    for name in names:
        table = read_table(storage, name, finder)
        if table and table.rows and (plan := _plan(table, finder, pictures, labels, storage)):
            plans.append(plan)
    return [plan for plan in plans if plan.by_name] or plans


def _plan(table: Table, finder: Finder, pictures: str, labels: str, storage: Storage) -> Plan | None:
    """Return which columns of a table are read; None where it names no pictures or has no labels."""
    for given in (pictures, labels):
        if given and given not in table.columns:
            raise UserError(f"{storage.where(table.file)}: has no column {given}; it has {few(table.columns, 20)}")
    shares = {name: _share(table, name, finder) for name in ([pictures] if pictures else table.columns)}
    naming = [name for name, share in shares.items() if share >= (0 if pictures else 0.5)]
    column = _one(table, naming, PICTURES, "pictures", storage)
    if column is None:
        return None
    if table.damage:
        raise UserError(table.damage)
    if labels:
        return Plan(table, column, (labels,), True)
    if OBJECTS in table.columns:
        return Plan(table, column, (OBJECTS,), True)
    others = [name for name in table.columns if name not in naming and _plain(name) not in (*SPLITS, *sum(EDGES, ()))]
    named = [name for name in others if _plain(name) in LABELS]
    if named:
        return Plan(table, column, (str(_one(table, _words_first(table, named), LABELS, "labels", storage)),), True)
    flags = [name for name in others if _are_flags(table.columns[name])]
    unsure = [name for name in others if _may_be_flags(table.columns[name]) and name not in flags]
    if unsure and len(flags) + len(unsure) > 1:
        raise UserError(
            f"{storage.where(table.file)}: of columns that say 0 or 1, {few(unsure)} hold -1 or nothing in places; "
            f"write 0 or 1 there, or say the column of labels: --reader table:{table.file}::COLUMN"
        )
    if len(flags) > 1:
        return Plan(table, column, tuple(flags), False)
    few_values = [name for name in others if len(set(map(str, table.columns[name]))) <= max(2, table.rows // 2)]
    label = _one(table, few_values, (), "labels", storage)
    return Plan(table, column, (label,), False) if label is not None else None


def _are_flags(cells: Sequence[Any]) -> bool:
    """Say whether a column says yes or no of each picture; CelebA writes -1 for no."""
    found = {str(cell).strip().lower() for cell in cells}
    return any(found <= answers for answers in FLAGS)


def _may_be_flags(cells: Sequence[Any]) -> bool:
    """Say whether a column says yes or no, but not of each picture: CheXpert's have -1 for unsure."""
    return "1" in (found := {str(cell).strip().removesuffix(".0") for cell in cells}) and found <= UNSURE


def _one(table: Table, names: Sequence[str], known: Sequence[str], what: str, storage: Storage) -> str | None:
    """Return the only column, or the one with the likeliest name; UserError where that is not clear."""
    named = sorted((known.index(_plain(name)), name) for name in names if _plain(name) in known)
    if len(names) <= 1 or (named and what == "pictures"):
        return named[0][1] if named else next(iter(names), None)
    raise UserError(
        f"{storage.where(table.file)}: {few(names, 10)} may each be its {what}; say which: "
        f"--reader table:{table.file}:{'COLUMN' if what == 'pictures' else ':COLUMN'}"
    )


def _words_first(table: Table, names: list[str]) -> list[str]:
    """Leave out what only numbers the classes that another column names."""
    ordered = sorted(names, key=lambda name: all(str(cell).isdecimal() for cell in table.columns[name]))
    kept: list[str] = []
    for name in ordered:  # words before numbers
        cells = [list(map(str, table.columns[each])) for each in (name, *kept)]
        if not any(
            len(set(zip(cells[0], other, strict=True))) == len(set(cells[0])) == len(set(other)) for other in cells[1:]
        ):
            kept.append(name)
    return kept


def _share(table: Table, column: str, finder: Finder) -> float:
    """Return the share of a column's cells that name a picture; 0 of what may as well be numbers of classes."""
    cells = table.some(column)
    if _plain(column) in LABELS or not all(isinstance(cell, str | int) for cell in cells):
        return 0.0
    names = [str(cell) for cell in cells]
    if all(name.isdecimal() for name in names) and 2 * len(set(names)) < len(names):
        return 0.0
    split = Plan(table, "", (), False).split or "train"
    return sum(finder.find(name, table.file, split) is not None for name in names) / max(1, len(names))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _agrees(plan: Plan, label_of: dict[str, str], finder: Finder | None) -> bool:
    """Say whether a table divides the pictures as the folders do, whatever it calls the classes."""
    pairs = set()
    for record in _labeled([plan]):
        name = finder.find(record.picture, record.file, record.split) if finder else None
        if name in label_of:
            pairs.add((label_of[name], record.objects[0][0] if record.objects else ""))
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def _labeled(plans: Sequence[Plan], separator: str = "") -> Iterator[Labeled]:
    for plan in plans:
        columns = plan.table.columns
        by_plain = {_plain(name): column for name, column in columns.items()}
        splits = next((by_plain[name] for name in SPLITS if name in by_plain and _are_splits(by_plain[name])), None)
        edges = next(([by_plain[name] for name in names] for names in EDGES if set(names) <= set(by_plain)), None)
        sides = [by_plain[name] for name in ("height", "width") if name in by_plain] if edges else []
        shares = edges is not None and all(number(cell) <= 1 for column in edges for cell in column[:LOOKED_AT])
        values = [columns[name] for name in plan.labels]
        same: dict[Objects, Objects] = {}
        whole = plan.split
        for row, picture in enumerate(columns[plan.pictures]):
            split = whole if splits is None else split_of(str(splits[row]))
            objects: Objects = ()
            names: list[str] | None = None
            if splits is not None and split is None:
                pass  # of no split, so not used
            elif plan.labels == (OBJECTS,):
                objects = _objects(values[0][row])
            else:
                place = [number(column[row]) for column in edges] if edges else []
                where = (place[0], place[1], place[2], place[3]) if any(map(math.isfinite, place)) else None
                names = _names(plan, [column[row] for column in values], separator)
                objects = tuple((name, where) for name in names or ())
                objects = same.setdefault(objects, objects)  # most of a million rows say one of a thousand labels
            drawn_on = RELATIVE if shares else _drawn_on(sides, row)
            yield Labeled(str(picture), objects, plan.table.file, split, drawn_on, names == [])


def _objects(cell: Any) -> Objects:
    """Return Hugging Face's boxes of a picture, `{"bbox": [[x, y, width, height], ...], "categories": [...]}`."""
    if isinstance(cell, list):  # one dictionary an object
        cell = {key: [one.get(key) for one in cell] for key in cell[0]} if cell else None
    boxes = cell.get("bbox") or [] if isinstance(cell, dict) else []
    keys = ("categories", "category", "labels", "label")
    names: list[Any] = next((cell[key] for key in keys if key in cell), []) if boxes else []
    return tuple((str(name), corners(box)) for name, box in zip(names, boxes, strict=False))


def _are_splits(cells: Sequence[Any]) -> bool:
    return "train" in {split_of(str(cell)) for cell in set(map(str, cells))}


def _drawn_on(sides: Sequence[Sequence[Any]], row: int) -> Size | None:
    values = [number(side[row]) for side in sides]
    return (int(values[0]), int(values[1])) if len(values) == 2 and min(values) >= 1 else None


def _names(plan: Plan, cells: Sequence[Any], separator: str) -> list[str] | None:
    """Return a row's labels; None where it says nothing of them."""
    if len(plan.labels) > 1:
        yes = [number(cell) == 1 or str(cell).strip().lower() == "true" for cell in cells]
        return [name for name, there in zip(plan.labels, yes, strict=True) if there]
    return names_in(cells[0], separator)
