"""Random damage to real files: `python tests/fuzz/fuzz.py --minutes 60`, for anyone who wants to look for faults.

Files of `tests/golden/files` are changed - bytes, runs of bytes, lengths, ends - and read as a command would read
them. What may happen is a right answer or one typed error. A fault is any other exception, a crash, more time or more
memory than stated; it is printed with the seed, which makes the same file again: `--seed S --file F --trial N`.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from types import FrameType
from typing import Any

FILES = Path(__file__).parents[1] / "golden" / "files"
SECONDS = 20
MEMORY = 1 << 30
"""Bytes that a process may take beside what it has after its first, undamaged files."""
TRIALS = 200
"""Trials of a process."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return a file changed in one to eight places."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Headers are where files can lie: half of the changes are to the first or the last two kilobytes.
        start, end = rng.choice(((0, len(data)), (0, len(data)), (0, 2048), (max(0, len(data) - 2048), len(data))))
        place = rng.randrange(start, max(start + 1, min(end, len(data)))) if data else 0
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[place] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
        elif kind == 2:
            data[place : place + rng.randrange(1, 64)] = b""
        elif kind == 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 64))
        elif kind == 4:
            value = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**33, 2**63 - 1, 2**64 - 1))
            size = rng.choice((2, 4, 8))
            data[place : place + size] = (value % 256**size).to_bytes(size, rng.choice(("little", "big")))
        elif kind == 5:
            other = rng.randrange(len(data)) if data else 0
            data[place:place] = data[other : other + rng.randrange(1, 256)]
        elif kind == 6:
            data[place : place + 16] = bytes(16)
        else:
            del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def _load(path: Path) -> None:
    import verydeep as vd

    vd.load(path)


def _picture(path: Path) -> None:
    from verydeep.images.files import read_picture

    read_picture(path)


def _posteriors(path: Path) -> None:
    import verydeep as vd

    vd.Posteriors.read(path)


def _boxes(path: Path) -> None:
    from verydeep.localization.detections import Detections

    Detections.read(path)


def _recipe(path: Path) -> None:
    import verydeep as vd

    vd.load_recipe(path)


def seeds() -> dict[str, tuple[Path, Callable[[Path], None]]]:
    """Return the files that are damaged, and what reads each."""
    found: dict[str, tuple[Path, Callable[[Path], None]]] = {}
    readers = {"weights": _load, "foreign": _load, "pictures": _picture}
    for folder, read in readers.items():
        for path in sorted((FILES / folder).iterdir()):
            found[f"{folder}/{path.name}"] = path, read
    for path in sorted((FILES / "results").rglob("*.parquet")):
        is_boxes = "boxes" in path.relative_to(FILES).parts
        found[str(path.relative_to(FILES))] = path, _boxes if is_boxes else _posteriors
    recipe = next((FILES / "runs").rglob("recipe.toml"))
    return {**found, str(recipe.relative_to(FILES)): (recipe, _recipe)}


def trial(name: str, seed: int, number: int, folder: Path) -> str:
    """Damage a file and read it; return how that ended: `read`, `refused`, or the fault in words."""
    from verydeep.basics.errors import UserError
    from verydeep.basics.memory import resident

    path, read = seeds()[name]
    damaged = folder / f"damaged{path.suffix}"
    damaged.write_bytes(mutate(path.read_bytes(), random.Random(f"{seed} {name} {number}")))
    before, begun = resident(), _seconds()
    try:
        read(damaged)
        end = "read"
    except UserError as error:
        end = "refused" if len(str(error).splitlines()) == 1 else f"an error of several lines: {error}"
    except Exception as error:  # which is what is looked for
        end = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    if _seconds() - begun > SECONDS:
        end = f"took {_seconds() - begun:.0f} s"
    if resident() - before > MEMORY:
        end = f"took {(resident() - before) >> 20} MiB"
    return end


def _seconds() -> float:
    """Return the processor time of this process and its children: others on the machine are no fault of a file."""
    return sum(os.times()[:4])


def _stop(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {2 * SECONDS} s")


def many(names: list[str], seed: int, first: int, count: int, out: int) -> None:
    """Do some trials in a process of its own, and write how each ended, so that a crash loses only what comes after."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as quiet, redirect_stderr(quiet):  # noqa: PTH123
        for number in range(first, first + count):
            name = names[number % len(names)]
            os.write(out, (json.dumps([name, number, None]) + "\n").encode())
            signal.alarm(2 * SECONDS)
            end = trial(name, seed, number, Path(folder))
            signal.alarm(0)
            os.write(out, (json.dumps([name, number, end]) + "\n").encode())


def run(names: list[str], seed: int, minutes: float, first: int = 0) -> dict[str, Any]:
    """Go on for some minutes; return counts and faults."""
    for name in names:  # undamaged: what is imported and kept once
        path, read = seeds()[name]
        with suppress_known():
            read(path)
    ends, faults, number = Counter[str](), list[list[Any]](), first
    until = time.monotonic() + 60 * minutes
    stopped = [False]
    signal.signal(signal.SIGTERM, lambda *_: stopped.__setitem__(0, True))  # ends with its figures, too
    while time.monotonic() < until and not stopped[0]:
        inlet, outlet = os.pipe()
        if (child := os.fork()) == 0:
            os.close(inlet)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            many(names, seed, number, TRIALS, outlet)
            os._exit(0)
        os.close(outlet)
        with os.fdopen(inlet) as lines:
            said = [json.loads(line) for line in lines]
        status = os.waitpid(child, 0)[1]
        for name, place, end in said:
            if end is None:
                continue
            ends[f"{name.split('/')[0]} {end if end in ('read', 'refused') else 'FAULT'}"] += 1
            if end not in ("read", "refused"):
                faults.append([name, place, end])
        if status:
            faults.append([*said[-1][:2], f"the process ended with {status}"])
            ends["crashes"] += 1
        for fault in faults[
            len(faults) - len([1 for s in said if s[2] not in (None, "read", "refused")]) - bool(status) :
        ]:
            print(f"FAULT --seed {seed} --file {fault[0]} --trial {fault[1]}: {fault[2]}", flush=True)
        number += TRIALS if not status else said[-1][1] - number + 1
    return {"seed": seed, "trials": number - first, "ends": dict(sorted(ends.items())), "faults": len(faults)}


class suppress_known:  # noqa: N801 (used as contextlib.suppress is)
    """Pass over what the undamaged files are refused for, such as an extra that is not installed."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        from verydeep.basics.errors import UserError

        if isinstance(error, UserError):
            print(f"not tried undamaged: {error}", file=sys.stderr)
        return isinstance(error, UserError)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--file", action="append", help="only these, by the beginning of their names")
    parser.add_argument("--trial", type=int, help="one trial alone, as a fault was printed")
    words = parser.parse_args()
    names = [name for name in seeds() if not words.file or name.startswith(tuple(words.file))]
    if words.trial is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(trial(names[0], words.seed, words.trial, Path(folder)))
        return
    result = run(names, words.seed, words.minutes)
    print(json.dumps(result, indent=1))
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
