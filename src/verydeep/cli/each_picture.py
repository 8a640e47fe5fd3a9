"""Picture after picture, a damaged one being no reason to leave out the others."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from verydeep.cli.console import echo

Result = TypeVar("Result")
Row = dict[str, Any]

SHOWN = 10  # files that are named of those that were skipped


def find_files(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the pictures that are meant, and what lies beside them in folders, which is named on stderr."""
    from verydeep.datasets.layout import few
    from verydeep.images.files import pictures_and_others
    from verydeep.images.formats import counted

    files, others = pictures_and_others(images)
    if others:
        names = [str(file) for file in others]
        echo(
            f"verydeep: note: skipped {len(names)} files that are no pictures ({counted(names)}): {few(names)}",
            err=True,
        )
    return files, others


def each_picture(files: Sequence[Path], work: Callable[[Path], Result], rows: list[Row]) -> Iterator[Result]:
    """Yield what `work` makes of each picture; a damaged one is named on stderr and entered into `rows`."""
    from verydeep.basics.errors import BadImageError

    for file in files:
        try:
            result = work(file)
        except BadImageError as error:
            rows.append({"image": str(file), "error": error.reason})
            echo(f"verydeep: error: {error}", err=True)
        else:
            yield result


def drawings(files: Sequence[Path], out: Path | None) -> dict[str, Path]:
    """Return where each picture's drawing goes in a folder, numbered where two have the same name."""
    names = dict[str, Path]()
    taken = Counter[str]()
    for file in files if out else ():
        assert out is not None
        taken[file.stem] += 1
        number = taken[file.stem]
        names[str(file)] = out / (f"{file.stem}~{number}.png" if number > 1 else f"{file.stem}.png")
    return names


def _flat(row: Row) -> Row:
    """Return a row with the edges of a box in columns of their own."""
    box = zip(("xmin", "ymin", "xmax", "ymax"), row.get("box", ()), strict=False)
    return {**{key: value for key, value in row.items() if key != "box"}, **dict(box)}


def finish(rows: Sequence[Row], as_json: bool, table: Path | None = None, skipped: Sequence[Path] = ()) -> None:
    """Write the rows as CSV, a line for each class, print them as JSON; exit with 2 where a picture was damaged.

    In JSON files that were skipped come last: how many, by their ending, and the first few.
    """
    if table is not None:
        from verydeep.basics.files import write_aside

        lines: list[Row] = []
        for row in rows:
            lines += [
                {"image": row["image"], "rank": rank, **_flat(one)} for rank, one in enumerate(row.get("top", ()), 1)
            ]
            lines += [{"image": row["image"], "error": row["error"]}] if "error" in row else []
        columns = list(dict.fromkeys(key for line in lines for key in line))
        with write_aside(table) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(lines)
    if as_json:
        endings = Counter(file.suffix.lower() for file in skipped)
        first = list(map(str, skipped[:SHOWN]))
        last = [{"skipped": len(skipped), "by_ending": dict(endings.most_common()), "first": first}] if skipped else []
        echo(json.dumps([*rows, *last], indent=2))
    if any("error" in row for row in rows):
        raise typer.Exit(2)
