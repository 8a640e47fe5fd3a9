"""Color statistics of a data set, for mean subtraction and the random color shift."""

from concurrent.futures import ThreadPoolExecutor

from verydeep.basics.chance import generator
from verydeep.basics.progress import track
from verydeep.datasets.dataset import Dataset
from verydeep.images.color import ColorStatistics, measure


def measure_color(dataset: Dataset, seed: int, threads: int = 1, images: int = 10_000) -> ColorStatistics:
    """Measure the RGB pixels of a data set, by a sample where it is large.

    Parameters
    ----------
    dataset : Dataset
        The training set.
    seed : int
        Chooses the sample.
    threads : int
        How many images are decoded at a time.
    images : int
        The most images to look at; of 10,000 the mean's standard error is below half a grey level.

    Returns
    -------
    ColorStatistics
    """
    chosen = sorted(generator(seed).permutation(len(dataset))[:images].tolist())
    with ThreadPoolExecutor(threads) as pool:
        blocks = (chosen[start : start + _BLOCK] for start in range(0, len(chosen), _BLOCK))
        pictures = (picture for block in blocks for picture in pool.map(dataset.image, block))
        return measure(track(pictures, len(chosen), "measuring colors"))


_BLOCK = 64
"""Decoded images that wait at most."""
