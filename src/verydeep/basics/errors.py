"""What a user did wrong, said in one line."""

from collections.abc import Callable

from verydeep.basics.formatting import printable


class UserError(ValueError):
    """A request that cannot be carried out as it stands.

    The message is one line: what, where, what was expected, what to do. The command line prints it and exits
    with status 2; in the API it is a `ValueError`.
    """

    def __init__(self, message: str = "") -> None:
        # Names that strangers gave are part of messages, whatever characters they hold.
        super().__init__(printable(" ".join(message.splitlines())))


class SharedError(UserError):
    """A request that no process of a group can carry out: the first says so, and they end together.

    `torchrun` kills the other processes as soon as one has failed, and might kill the first before it has spoken; so
    all call `wait`, which returns when every process has called it, once the message is said.
    """

    def __init__(self, message: str, first: bool, wait: Callable[[], object]) -> None:
        super().__init__(message)
        self.first = first
        self.wait = wait


class WorkError(RuntimeError):
    """Work that was asked for rightly, and failed for a reason that the message says in one line.

    The command line prints it and exits with status 1.
    """


class BadImageError(UserError):
    """A file, named by its path or `archive.tar/member`, that cannot be read as an image."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadImageError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class BadBoxError(UserError):
    """An annotation that gives no usable box; `image` is the id of its image, empty where that is not there."""

    def __init__(self, name: str, reason: str, image: str = "") -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.image = image

    def __reduce__(self) -> tuple[type["BadBoxError"], tuple[str, str, str]]:
        return type(self), (self.name, self.reason, self.image)


class NotFiniteError(UserError):
    """A network gives values that are no numbers."""
