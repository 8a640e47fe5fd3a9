"""Elementary descriptors made into one: over scales, over networks, and where it is normalized."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def combine(parts: Sequence[Sequence[Rows]], aggregate: str, normalize: str) -> Rows:
    """Combine descriptors of the same N pictures.

    Parameters
    ----------
    parts : sequence (networks) of sequence (scales) of ndarray, shape (N, D)
        D may differ between networks.
    aggregate : {"mean", "stack", "max"}
        Over the scales of a network. The paper averages on VOC and stacks on Caltech, where stacking beat both
        others.
    normalize : {"l2", "l2-scales", "l2-whole", "none"}
        Which vectors are brought to unit Euclidean norm: each network's, after its scales are aggregated and before
        networks are stacked; each scale's, before it is aggregated; the whole, once everything is stacked; or none.
        The paper normalizes, but does not say which; with one network the first and the third are the same. A
        vector of zeros stays one.

    Returns
    -------
    ndarray of float32, shape (N, D')
        Networks are always stacked.
    """
    networks = []
    for scales in parts:
        chosen = [unit(rows) for rows in scales] if normalize == "l2-scales" else list(scales)
        networks.append(_aggregated(chosen, aggregate))
    if normalize == "l2":
        networks = [unit(rows) for rows in networks]
    whole = np.hstack(networks) if len(networks) > 1 else networks[0]
    return unit(whole) if normalize == "l2-whole" else whole


def _aggregated(scales: Sequence[Rows], aggregate: str) -> Rows:
    if len(scales) == 1:
        return scales[0]
    if aggregate == "stack":
        return np.hstack(scales)
    if aggregate == "max":
        return np.asarray(np.maximum.reduce(scales))
    return np.asarray(np.mean(scales, axis=0, dtype=np.float64), np.float32)


def unit(rows: Rows) -> Rows:
    """Return rows of Euclidean norm 1; those of zeros stay as they are."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)
