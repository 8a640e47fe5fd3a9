"""Which images of a data set are damaged: decode each once, and remember the answer as long as no file changes."""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import cache_folder, write_text
from verydeep.basics.machine import cores
from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.basics.version import VERSION
from verydeep.datasets.dataset import Dataset


def decode_all(dataset: Dataset) -> Iterator[tuple[int, int] | BadImageError]:
    """Decode every image in threads: its height and width in pixels, or what is wrong with it, in order."""

    def check(index: int) -> tuple[int, int] | BadImageError:
        try:
            height, width = dataset.image(index).shape[:2]
        except BadImageError as error:
            return error
        return height, width

    return in_threads(check, range(len(dataset)), cores())


def without_bad(dataset: Dataset) -> Dataset:
    """Return the data set without its damaged images; these are listed in `.bad`.

    The first call decodes every image. Which ones are bad is then kept in `memory_file`, and found again as long as
    the path, size and time of change of every file are the same. UserError if a class has no image left.
    """
    memory = memory_file(dataset)
    reasons = _recall(memory)
    if reasons is None:
        checked = track(decode_all(dataset), len(dataset), f"checking {dataset.split} images")
        reasons = {i: result.reason for i, result in enumerate(checked) if isinstance(result, BadImageError)}
        _remember(memory, reasons)
    if len(reasons) == len(dataset):
        raise UserError(f"{dataset.storage.path}: none of the {len(dataset)} {dataset.split} images can be decoded")
    good = dataset.subset(index for index in range(len(dataset)) if index not in reasons)
    good.bad = tuple(BadImageError(dataset.where(index), reason) for index, reason in reasons.items())
    lost = {sample.label for sample in dataset.samples} - {sample.label for sample in good.samples}
    if lost:
        name = dataset.classes[min(lost)]
        raise UserError(f"{dataset.storage.path}: every {dataset.split} image of class {name} is damaged")
    if good.bad:
        good.provenance += f"; {len(good.bad)} damaged images left out"
    return good


def memory_file(dataset: Dataset) -> Path:
    """Return where the damaged images of exactly these files are remembered, in the user's cache folder."""
    digest = blake2b(VERSION.encode(), digest_size=16)  # another version may decode what this one cannot
    digest.update(str(dataset.storage.path.absolute()).encode())
    for sample in dataset.samples:
        digest.update(f"\n{sample.id} {dataset.storage.files[sample.id].stamp()}".encode())
    return cache_folder() / "damaged-images" / f"{digest.hexdigest()}.json"


def _recall(memory: Path) -> dict[int, str] | None:
    try:
        return {int(index): str(reason) for index, reason in json.loads(memory.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):  # not there, or not as this file writes it
        return None


def _remember(memory: Path, reasons: dict[int, str]) -> None:
    try:
        write_text(memory, json.dumps(reasons))
    except UserError:  # a home that cannot be written to: the next time the images are decoded again
        return
