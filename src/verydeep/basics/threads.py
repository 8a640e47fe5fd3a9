"""Work on many items in threads, results in order, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from verydeep.basics.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None, ahead: int | None = None
) -> Generator[Result, None, None]:
    """Yield a function's result for each item, in the items' order; items are taken as needed, and may be endless.

    `Executor.map` begins with a `Future` for every item, gigabytes for a million of them, and keeps all results that
    nobody has taken yet; here at most `ahead` items wait, by default two a thread. An exception is raised where its
    result would have come, and what waits is dropped. By default there are some more threads than cores, for work that
    waits for files.
    """
    threads = threads or cores() + 4
    ahead = 2 * threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="in_threads")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
