"""Work over many pictures in parts, for which nothing starts processes but the user: `--part 2/8`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from verydeep.basics.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Part `number`, from 1, of `count`.

    Together the parts have everything once, whatever the remainder.

    Examples
    --------
    >>> [Part(k, 3).of("abcdefg") for k in (1, 2, 3)]
    ['adg', 'be', 'cf']
    """

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> "Part":
        """Read 2/8; UserError for what is none."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UserError(f"--part {text}: expected NUMBER/COUNT, the number from 1 to the count, such as 2/8")
        return Part(number, count)

    def of(self, things: Sequence[T]) -> Sequence[T]:
        """Return what falls to this part."""
        return things[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
