"""Many connections at once, and every answer checked against its picture.

By hand: python -m tests.serving.storm, with 1,000 connections and 10,000 answers.
"""

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Storm:
    """Clients that send pictures to a service, each on a connection of its own, and ask again where they are refused.

    `expected` are the posteriors of the pictures, right answers `apart` from them at most.
    """

    def __init__(self, port: int, model: str, files: Sequence[bytes], expected: Sequence[Any], apart: float) -> None:
        self._port, self._model, self._files = port, model, files
        self._expected, self._apart = expected, apart
        self.counts: Counter[str] = Counter(right=0, wrong=0, lost=0)

    def run(self, connections: int, answers: int) -> Counter[str]:
        """Open all connections, then send on all at once; go on with new ones until so many answers were given."""
        asyncio.run(self._run(connections, answers))
        return self.counts

    async def _run(self, connections: int, answers: int) -> None:
        left = iter(range(answers))
        opened, go = asyncio.Semaphore(0), asyncio.Event()
        clients = [asyncio.ensure_future(self._client(left, opened, go)) for _ in range(connections)]
        for _ in range(connections):
            await opened.acquire()
        go.set()
        await asyncio.gather(*clients)

    async def _client(self, left: Any, opened: asyncio.Semaphore, go: asyncio.Event) -> None:
        first = True
        for number in left:
            while not await self._ask(number, opened if first else None, go):
                first = False
                await asyncio.sleep(0.2)
            first = False
        if first:
            opened.release()

    async def _ask(self, number: int, opened: asyncio.Semaphore | None, go: asyncio.Event) -> bool:
        """Return whether an answer came, right or wrong; a refusal is none."""
        which = number % len(self._files)
        file, status = self._files[which], 0
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.counts["not let in"] += 1
            if opened:
                opened.release()
            return False
        try:
            if opened:
                opened.release()
            await go.wait()
            head = f"POST /models/{self._model}/classify?top=8 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(file)}\r\n\r\n".encode() + file)
            head_read = await reader.readuntil(b"\r\n\r\n")
            status = int(head_read.split()[1])
            content = json.loads(await reader.read())
        except (OSError, EOFError, ValueError):
            # A connection over the limit is closed at once, perhaps before its client has sent all and reads why.
            self.counts["lost" if status == 200 else "not let in"] += 1
            return False
        finally:
            writer.close()
        if status in (429, 503):
            self.counts[f"refused {status}"] += 1
            return False
        assert status == 200, content
        given = {one["class"]: one["posterior"] for one in content["top"]}
        found = [given[name] for name in sorted(given)]
        self.counts["right" if np.allclose(found, self._expected[which], rtol=0, atol=self._apart) else "wrong"] += 1
        return True


def main() -> None:
    """Print what becomes of 10,000 pictures, and the service's memory before and after."""
    import verydeep as vd
    from tests.serving.conftest import Running, jpeg, network, random_picture, rounding

    rng = np.random.default_rng()
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "a.safetensors"
        vd.save(network(int(rng.integers(2**31))), weights)
        files = [jpeg(random_picture(rng, int(rng.integers(64, 120)), int(rng.integers(64, 120)))) for _ in range(100)]
        expected = [one.posterior for one in vd.predict(weights, files)]
        apart = rounding(weights, files)
        gaps = [np.abs(a - b).max() for k, a in enumerate(expected) for b in expected[:k]]
        service = Running([str(weights), "--memory", "256MiB"], Path(name))
        before, begin = service.resident(), time.monotonic()
        try:
            done = Storm(service.port, "a", files, expected, apart).run(connections=1000, answers=10_000)
            seconds, peak = time.monotonic() - begin, service.resident(peak=True)
        finally:
            service.stop()
        print(", ".join(f"{count} {what}" for what, count in done.items()))
        print(f"{seconds:.0f} s; peak memory {(peak - before) / 2**20:.0f} MiB above the start, --memory 256MiB")
        print(f"answers may be {apart:.1e} off; those of pictures are {min(gaps):.1e} apart at least")


if __name__ == "__main__":
    main()
