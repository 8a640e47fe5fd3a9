"""Color statistics of a data set, for mean subtraction and the random color shift."""

from verydeep.basics.progress import track
from verydeep.basics.rng import generator
from verydeep.basics.threads import in_threads
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
    return measure(track(in_threads(dataset.image, chosen, threads), len(chosen), "measuring colors"))
