"""Pictures decoded and rescaled in threads, ahead of the network, within a bound of memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from verydeep.basics.errors import BadImageError
from verydeep.basics.machine import cores
from verydeep.basics.memory import Budget
from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.datasets.dataset import Dataset
from verydeep.images.decode import BYTES_A_PIXEL
from verydeep.images.files import open_picture
from verydeep.inference.memory import too_large
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import Picture, prepare, view_size
from verydeep.nets.network import Network

_MOST_THREADS = 16


class Loader:
    """Reads the pictures of a data set for a network, in threads: one a core, at most 16, unless their number is given.

    `memory` is in bytes, for pictures and network together; a quarter is for originals being decoded.
    """

    def __init__(self, dataset: Dataset, net: Network, memory: int, threads: int | None = None) -> None:
        self.dataset = dataset
        self.net = net
        self._memory = memory
        self._budget = Budget(memory // 4)  # most is the network's
        self._threads = threads or min(_MOST_THREADS, cores())
        self._sizes: list[tuple[int, int]] = []
        self._fitting: set[tuple[Protocol, tuple[int, int]]] = set()  # sizes known to fit into the memory

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every original, read once from the headers."""
        if not self._sizes:
            count = len(self.dataset)
            self._sizes = list(track(in_threads(self.dataset.size, range(count)), count, "sizes"))
        return self._sizes

    def pictures(self, part: Protocol, batches: Sequence[Sequence[int]]) -> Iterator[list[Picture]]:
        """Yield the prepared pictures of each batch of indices, decoding one batch ahead.

        BadImageError for a picture that cannot be decoded.
        """
        for (pictures,) in self.at_scales((part,), batches):
            yield pictures

    def at_scales(self, parts: Sequence[Protocol], batches: Sequence[Sequence[int]]) -> Iterator[list[list[Picture]]]:
        """Yield for each batch of indices its pictures prepared for every one of some protocols, decoded once."""
        # While the network works on a batch the next one is decoded.
        ahead = max(map(len, batches), default=0)
        indices = (index for batch in batches for index in batch)
        ready = in_threads(lambda index: self._picture(parts, index), indices, self._threads, ahead)
        for batch in batches:
            yield [list(row) for row in zip(*islice(ready, len(batch)), strict=True)]

    def _picture(self, parts: Sequence[Protocol], index: int) -> list[Picture]:
        height, width = size = self.sizes[index]
        for part in parts:
            if (part, size) not in self._fitting:
                if reason := too_large(size, part, self.net, self._memory):
                    raise BadImageError(self.dataset.where(index), reason)
                self._fitting.add((part, size))
        with self._budget.hold(BYTES_A_PIXEL * height * width):
            original = self.dataset.image(index)
            return [prepare(part, self.net, original) for part in parts]


def open_prepared(
    image: Any, name: str, parts: Sequence[Protocol], net: Network, memory: int
) -> tuple[tuple[int, int], list[Picture]]:
    """Return the height and width of what a user calls a picture, and it rescaled for every one of some protocols.

    BadImageError, with its `name`, where it cannot be read, or takes more than `memory` bytes.
    """
    name = name or "picture"
    original = open_picture(image, name, memory // BYTES_A_PIXEL)
    size = original.shape[0], original.shape[1]
    for part in parts:
        if reason := too_large(size, part, net, memory):
            raise BadImageError(name, reason)
    return size, [prepare(part, net, original) for part in parts]


def batches(
    part: Protocol, crop: int, sizes: Sequence[tuple[int, int]], at_once: Callable[[int, int], int]
) -> list[list[int]]:
    """Return indices of pictures whose views have one size, as many at a time as memory allows.

    A function of sizes and memory alone, so that a continued evaluation runs the same batches. `at_once` says how many
    pictures share a batch, by the height and width of their views.
    """
    groups = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[tuple(view_size(one, crop, *size) for one in part.each_scale)].append(index)
    found = []
    for every, group in sorted(groups.items()):
        count = at_once(*every[-1])  # of the largest
        found += [group[start : start + count] for start in range(0, len(group), count)]
    return found
