"""Whether an image has one label or several, and which labels a cell of text holds: as written, or as the user says."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.layout import few

BESIDE = re.compile(r"(['\"])\s+(?=['\"])")  # of NumPy's lists, ['cat' 'dog'], which Python would read as one name
COMPARED = 1000  # names whose words are compared with one another's
CERTAIN, POSSIBLE = "|;", ", "  # what stands between labels, and what may as well be part of a name


@dataclass(frozen=True)
class LabelChoice:
    """What the user says of labels: `several` of an image or one (None: as written), and what stands between them."""

    several: bool | None = None
    separator: str = ""

    @staticmethod
    def parse(text: str | None) -> "LabelChoice":
        """Read `one`, `several` or a separator; UserError where the text is none of these."""
        if text is None:
            return AS_WRITTEN
        if text in ("one", "several"):
            return LabelChoice(text == "several")
        separator = text.strip() or text[:1]
        if len(separator) != 1 or separator.isalnum():
            raise UserError(
                f"--labels {text!r}: expected one, several, or what stands between labels, such as ',' or ' '"
            )
        return LabelChoice(True, separator)

    def separator_of(self, cells: Iterable[Any], where: str) -> str:
        """Return what stands between the labels in a column's cells, "" where each is one name.

        UserError, naming `where`, where commas or spaces may be either.
        """
        cells = list(cells)
        _check_lists(cells, where)
        if self.separator or self.several is False:
            return self.separator
        texts = {text for cell in cells if isinstance(cell, str) and (text := cell.strip()) and text[0] != "["}
        if found := [mark for mark in CERTAIN if any(len(_parts(text, mark)) > 1 for text in texts)]:
            if len(found) > 1:
                raise UserError(f"{where}: both | and ; stand in its labels; say which is between them: --labels '|'")
            return found[0]
        for mark in POSSIBLE:
            divided = {text: parts for text in texts if len(parts := _parts(text, mark)) > 1}
            every = {part for own in divided.values() for part in own}
            if divided and (every <= texts or all(part.isdecimal() for part in every)):
                return mark
            if divided and _may_divide(divided, texts, mark):
                raise UserError(
                    f"{where}: {few(map(repr, sorted(divided)), 2)} may be names or several labels; say --labels one, "
                    f"or --labels {mark!r} where that stands between labels"
                )
        return ""


AS_WRITTEN = LabelChoice()


def names_in(cell: Any, separator: str) -> list[str] | None:
    """Return the labels in a cell: a name, several with a separator between, a list; None where it says nothing."""
    if isinstance(cell, float):
        cell = None if math.isnan(cell) else int(cell) if cell.is_integer() else cell
    text = "" if cell is None else str(cell).strip()
    if not isinstance(cell, list | tuple):
        cell = _listed(text)
    if cell is not None:
        return [str(each).strip() for each in cell]
    return (_parts(text, separator) if separator else [text]) if text else None


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _listed(text: str) -> list[Any] | None:
    """Return a list that is written out as JSON or Python has it, `["cat", "dog"]`."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    text = BESIDE.sub(r"\1, ", text)
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list) and all(isinstance(each, str | int) for each in found):
            return found
    return None


def _check_lists(cells: Sequence[Any], where: str) -> None:
    """Refuse lists that may say of each class in turn whether it is there, and not which are."""
    lists = [cell for cell in cells if isinstance(cell, list)]
    if len({*map(len, lists)}) == 1 and len(lists[0]) > 2 and all(each in (0, 1) for cell in lists for each in cell):
        raise UserError(
            f"{where}: lists of {len(lists[0])} zeros and ones may say of each class whether it is there; write the "
            "classes' names or numbers, or a column for each class"
        )


def _may_divide(divided: dict[str, list[str]], texts: set[str], separator: str) -> bool:
    """Say whether parts of different cells are the same, as labels in many combinations are.

    "golden retriever" and "labrador retriever" share a word, so of words there must be fewer than names, or one name
    made of others, or all words of one among those of another.
    """
    uses = Counter(part for parts in divided.values() for part in set(parts))
    if separator != " ":
        return any(count > 1 or part in texts for part, count in uses.items())
    if len(uses) < len(divided) or any(set(parts) <= texts for parts in divided.values()):
        return True
    words = sorted(map(frozenset, divided.values()), key=len)[:COMPARED]
    return any(fewer <= more for place, fewer in enumerate(words) for more in words[place + 1 :])
