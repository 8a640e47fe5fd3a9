"""The mean of posteriors: of protocols, of networks, of both."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.basics.version import VERSION
from verydeep.evaluation.posteriors import Posteriors


def fuse(parts: Sequence[Posteriors], names: Sequence[str] = ()) -> Posteriors:
    """Average posteriors with equal weights (paper section 4.3 and 4.4).

    Parameters
    ----------
    parts : sequence of Posteriors
        Of the same images, labels and classes; the images may stand in any order and are aligned by id, in the
        order of the first.
    names : sequence of str
        What to call the parts in a message, for example their files.

    Returns
    -------
    Posteriors
        The mean, summed in float64. Its metadata holds what the parts have in common, and ``fused``: the
        metadata of each.

    Raises
    ------
    UserError
        Where images, labels or classes differ, saying which.
    """
    if not parts:
        raise UserError("fuse: nothing to fuse; give one posteriors file or more")
    names = names or [f"posteriors {i + 1}" for i in range(len(parts))]
    first = parts[0]
    total = np.zeros(first.probabilities.shape, np.float64)
    for part, name in zip(parts, names, strict=True):
        total += _aligned(part, name, first, names[0]).probabilities
    mean = (total / len(parts)).astype(np.float32)
    metadata = common_metadata([part.metadata for part in parts])
    return Posteriors(first.ids, first.labels, mean, first.classes, metadata, first.targets)


def _aligned(part: Posteriors, name: str, first: Posteriors, first_name: str) -> Posteriors:
    if part.classes != first.classes:
        raise UserError(f"{name} and {first_name} differ in classes: {_difference(part.classes, first.classes)}")
    if part.ids != first.ids:
        if set(part.ids) != set(first.ids):
            raise UserError(f"{name} and {first_name} differ in images: {_difference(part.ids, first.ids)}")
        part = part.rows(first.ids)
    targets = [np.empty(0, np.int8) if p.targets is None else p.targets for p in (part, first)]
    if not np.array_equal(targets[0], targets[1]):
        raise UserError(
            f"{name} and {first_name} differ in which classes images have; both must come from the same data set"
        )
    differ = np.flatnonzero(part.labels != first.labels)
    if len(differ):
        here = [p.classes[p.labels[differ[0]]] if p.labels[differ[0]] >= 0 else "unknown" for p in (part, first)]
        raise UserError(
            f"{name} and {first_name} differ in the labels of {len(differ)} images: "
            f"{first.ids[differ[0]]} is {here[0]!r} and {here[1]!r}; both must come from the same data set"
        )
    return part


def _difference(these: tuple[str, ...], those: tuple[str, ...]) -> str:
    here, there = sorted(set(these) - set(those)), sorted(set(those) - set(these))
    if not here and not there:
        return "the same names in another order"
    examples = ", ".join(repr(name) for name in [*here[:1], *there[:1]])
    return f"{len(here)} only in the one, {len(there)} only in the other (for example {examples})"


def common_metadata(metadata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what several files' metadata have in common, and the metadata of each as `fused`; that of one as it is."""
    if len(metadata) == 1:
        return metadata[0]
    shared = {key: value for key, value in metadata[0].items() if all(m.get(key) == value for m in metadata[1:])}
    shared.pop("fused", None)
    return {**shared, "fused": metadata, "created_by": f"verydeep {VERSION}"}
