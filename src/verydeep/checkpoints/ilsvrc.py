"""The classes of ILSVRC-2012, in the order of every public VGG's scores."""

from functools import lru_cache
from importlib.resources import files


@lru_cache
def class_names() -> tuple[str, ...]:
    """Return the 1,000 classes: WordNet id and name, as in Caffe's lists of synsets.

    The id comes first because names repeat (there are two cranes and two maillots), and because data sets of ILSVRC
    label their images by it.

    Examples
    --------
    >>> class_names()[:2], class_names()[134], class_names()[517]
    (('n01440764 tench', 'n01443537 goldfish'), 'n02012849 crane', 'n03126707 crane')
    """
    text = (files("verydeep.checkpoints") / "ilsvrc2012-classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
