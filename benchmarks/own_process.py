"""Work in a process of its own, so that its memory is its own."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from verydeep.basics.errors import WorkError


class OwnProcess:
    """A new process, and the line to it.

    Parameters
    ----------
    name : str
        What to call it where it dies.
    work : callable
        A function of a module, called with a connection and `arguments`; the process ends with it.
    *arguments
        What can be pickled.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        self.name = name
        self.line, there = multiprocessing.Pipe()
        words = (there, *arguments)
        self.process = multiprocessing.get_context("spawn").Process(target=_serve, args=(work, words), daemon=True)
        self.process.start()
        there.close()  # so that a process that dies is noticed: the pipe then has no other end

    def send(self, message: Any) -> None:
        """Send it a message."""
        self.line.send(message)

    def receive(self) -> Any:
        """Wait for a message.

        Raises
        ------
        WorkError
            The process died.
        """
        try:
            return self.line.recv()
        except EOFError:
            raise WorkError(f"{self.name}: its process died, for want of memory most likely; ask for less") from None


def _serve(work: Callable[..., None], words: tuple[Connection, Any]) -> None:
    work(*words)
