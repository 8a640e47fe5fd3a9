"""Names of classes in the order of a network's scores: ILSVRC-2012's, or those of a user's file."""

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.files import read_text


@lru_cache
def class_names() -> tuple[str, ...]:
    """Return the 1,000 classes: WordNet id and name, as in Caffe's lists of synsets.

    The id comes first because names repeat (there are two cranes and two maillots), and because data sets of ILSVRC
    label their images by it.

    Examples
    --------
    >>> class_names()[:2], class_names()[134], class_names()[517]
    (('n01440764 tench', 'n01443537 goldfish'), 'n02012849 crane', 'n03126707 crane')
    """
    text = (files("verydeep.checkpoints") / "ilsvrc2012-classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_class_names(path: Path) -> list[str]:
    """Return the names in a file: one a line, or JSON, `["cat", ...]`, `{"0": "cat", ...}` or `{"cat": 0, ...}`.

    Keras's `{"0": ["n01440764", "tench"], ...}` becomes id and name, as ILSVRC's are written here. UserError where
    numbers are missing, twice or none.
    """
    text = read_text(path)
    if path.suffix.lower() != ".json" and text.lstrip()[:1] not in ("[", "{"):
        names = [line.strip() for line in text.splitlines()]
        return [name for name in names if name]
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); expected a list of names, or numbers and names") from None
    if isinstance(values, dict):
        values = _in_order(values, path)
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{path}: expected a list of names, or a table of numbers and names")
    return values


def _in_order(table: dict[str, Any], path: Path) -> list[Any]:
    if all(type(value) is int for value in table.values()):
        table = {str(number): name for name, number in table.items()}
    numbers = [int(key) if key.strip().isdecimal() else -1 for key in table]
    if sorted(numbers) != list(range(len(numbers))):
        raise UserError(f"{path}: expected the numbers 0 to {len(numbers) - 1}, each once, with a name")
    names = dict(zip(numbers, table.values(), strict=True))
    return [" ".join(name) if isinstance(name, list) else name for _, name in sorted(names.items())]
