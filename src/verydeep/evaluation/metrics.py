"""Errors of posteriors: top-k, bootstrap intervals, McNemar's test of two systems."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.ranks import ranks


def wrong(posteriors: Posteriors, k: int) -> NDArray[np.bool_]:
    """Return for each labeled image whether its class is not among the k most probable.

    Ties go to the class that stands first, as `verydeep.inference.ranks` says.
    With k of at least the number of classes nothing can be wrong.

    Parameters
    ----------
    posteriors : Posteriors
        N images; those with label -1 are left out.
    k : int
        Guesses an image, at least 1.

    Returns
    -------
    ndarray of bool, shape (number of labeled images,)

    Raises
    ------
    UserError
        Where no image has a label.
    """
    labeled = posteriors.labels >= 0
    if not labeled.any():
        raise UserError("posteriors: no image has a label, so there is no error to compute; test on a labeled split")
    return np.asarray(ranks(posteriors.probabilities[labeled], posteriors.labels[labeled]) >= k)


def top_k_error(posteriors: Posteriors, k: int) -> float:
    """Return the share in [0, 1] of labeled images whose class is not among the k most probable.

    Ties and few classes are treated as in `wrong`.
    """
    return float(wrong(posteriors, k).mean())


def bootstrap_interval(
    wrong: NDArray[np.bool_], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of an error rate over images.

    Drawing n of n images with replacement and counting the wrong ones is a binomial draw with the measured
    rate, so that is what is drawn: the same distribution, at no cost. Where nothing (or everything) is wrong the
    bootstrap sees no spread and the interval has no width.

    Parameters
    ----------
    wrong : ndarray of bool, shape (N,)
        As from `wrong`.
    confidence : float
        Share of resamples inside, in (0, 1).
    resamples : int
        Number of resamples.
    seed : int
        Of the resampling: the same figures every time.

    Returns
    -------
    (float, float)
        Ends of the interval, in [0, 1].

    Examples
    --------
    >>> low, high = bootstrap_interval(np.arange(100) < 25)
    >>> round(low, 2), round(high, 2)
    (0.17, 0.34)
    """
    rates = generator(seed).binomial(len(wrong), wrong.mean(), size=resamples) / len(wrong)
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class ErrorRate:
    """An error rate in [0, 1] and its 95 % bootstrap interval; as text in per cent."""

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.rate:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def error_rate(posteriors: Posteriors, k: int) -> ErrorRate:
    """Return the top-k error with its 95 % bootstrap interval; ties and few classes as in `wrong`."""
    missed = wrong(posteriors, k)
    return ErrorRate(float(missed.mean()), *bootstrap_interval(missed))


def errors(posteriors: Posteriors) -> dict[str, ErrorRate]:
    """Return the `top1` and `top5` error, with intervals; no `top5` where there are five classes or fewer.

    Raises
    ------
    UserError
        Where no image has a label.
    """
    return {f"top{k}": error_rate(posteriors, k) for k in (1, 5) if k < max(2, len(posteriors.classes))}


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two systems gets wrong, and the probability of so uneven a split by chance."""

    only_first_wrong: int
    only_second_wrong: int
    p_value: float


def mcnemar(first_wrong: NDArray[np.bool_], second_wrong: NDArray[np.bool_]) -> McNemar:
    """Test whether two systems, tried on the same images, err equally often (McNemar 1947).

    Always the exact two-sided binomial test on the discordant images, so it holds for few of them too.

    Parameters
    ----------
    first_wrong, second_wrong : ndarray of bool, shape (N,)
        Which images each system gets wrong, in the same order.

    Examples
    --------
    >>> mcnemar(np.array([1, 1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 0, 0, 0], bool))
    McNemar(only_first_wrong=5, only_second_wrong=0, p_value=0.0625)
    """
    first = int((first_wrong & ~second_wrong).sum())
    second = int((second_wrong & ~first_wrong).sum())
    tail = float(bdtr(min(first, second), first + second, 0.5)) if first + second else 1.0
    return McNemar(first, second, min(1.0, 2 * tail))


def mcnemar_of(first: Posteriors, second: Posteriors, k: int) -> McNemar:
    """Test two systems' top-k errors on the same images, which are matched by id; ties as in `wrong`."""
    return mcnemar(wrong(first, k), wrong(second.rows(first.ids), k))
