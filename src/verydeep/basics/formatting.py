"""Words for people: the same layout wherever a command prints."""

import html
import unicodedata
from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], ruled: bool = False) -> str:
    """Return words in aligned columns: a heading, a line, the rows; `ruled` with a line above the heading, too.

    Examples
    --------
    >>> print(align([("a", "b"), ("long", "x")]))
    a     b
    -------
    long  x
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2 if ruled else max(map(len, lines)))
    return "\n".join([*([rule] if ruled else []), lines[0], rule, *lines[1:]])


def printable(text: str) -> str:
    r"""Return a text whose control characters, half surrogates, separators and turns of direction are escapes.

    File, class and layer names come from strangers, and a terminal obeys what it is sent.

    Examples
    --------
    >>> print(printable("café" + chr(27) + "[2J"))
    café\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"
        else c
        for c in text
    )


def markup(text: str) -> str:
    """Return a text for a page, also between quotes: nothing in it is read as HTML, and it is `printable`."""
    return html.escape(printable(text))


def chart_text(text: str) -> str:
    r"""Return a text for a chart: `printable`, and with no part that Matplotlib takes for a formula."""
    return printable(text).replace("$", r"\$")
