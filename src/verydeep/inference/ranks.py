"""Where an image's own class stands among the others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranks(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many classes stand before each image's own label, (N,), by scores or posteriors (N, K).

    Of equal scores the class that stands first in `classes` comes first, so that the result does not depend on a
    sorting algorithm.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return np.asarray(((scores > own) | ((scores == own) & earlier)).sum(axis=1))
