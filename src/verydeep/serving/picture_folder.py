"""Pictures of a folder that whoever started the service named: the only files that a request can speak of."""

import stat
from dataclasses import dataclass
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.serving.guard import Exchange
from verydeep.serving.refusal import RefusedError


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures, by its real path."""

    root: Path

    @classmethod
    def open(cls, name: str) -> "PictureFolder":
        """Return the folder of this name; UserError where there is none."""
        path = Path(name)
        if not path.is_dir():
            raise UserError(f"--pictures {name}: expected a folder, the one that pictures are kept in")
        return cls(path.resolve())

    def read(self, name: str, exchange: Exchange) -> bytes:
        """Return the bytes of a file in the folder, which the exchange holds.

        RefusedError for what is elsewhere, behind links, too, and for what is no file.
        """
        try:
            path = (self.root / name.lstrip("/")).resolve()
            inside = path.is_relative_to(self.root)
            about = path.stat() if inside else None
        except (OSError, ValueError, RuntimeError):  # too long, a zero in it, links in a circle
            inside, about = True, None
        if not inside:
            raise RefusedError(422, f"picture {name!r:.200} is outside the folder of --pictures")
        if about is None or not stat.S_ISREG(about.st_mode):
            raise RefusedError(422, f"picture {name!r:.200} is no file in the folder of --pictures")
        exchange.hold(about.st_size)
        try:
            with path.open("rb") as file:
                return file.read(about.st_size)
        except OSError as error:
            raise RefusedError(422, f"picture {name!r:.200} cannot be read ({error.strerror})") from None
