"""What people call folders that are no classes: splits, kinds of pictures, parts of a set."""

import re
from collections.abc import Iterable
from functools import lru_cache

_SPLITS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "holdout": "test",
}
_SPLIT = re.compile(f"({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(set|data|images|imgs|img|folder)?")
_WITHIN = re.compile("training|train|validation|valid|val|testing|test")
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PICTURES = _words("image images img imgs picture pictures pic pics photo photos jpegimages jpg jpeg png rgb")
MASKS = _words(
    "mask masks labels annotation annotations segmentation segmentations segmentationclass segmentationobject "
    "groundtruth gt"
)
_GENERIC = (
    PICTURES
    | MASKS
    | _words("set sets data dataset datasets folder folders split splits files raw seg classes classification all")
    | _words("color colour colored gray grey grayscale greyscale segmented processed original originals augmented")
    | _words("resized cropped normalized fold folds kfold cv part parts batch batches shard shards chunk chunks subset")
)


@lru_cache(4096)  # the same few folders, for each of a million pictures
def split_of(name: str) -> str | None:
    """Return "train", "val" or "test" where a folder's or file's name says that and nothing else.

    Examples
    --------
    >>> [split_of(name) for name in ("Training", "seg_train", "val2017", "test_set", "testImages", "train station")]
    ['train', 'train', 'val', 'test', 'test', None]
    """
    found = set()
    for token in _tokens(name):
        if match := _SPLIT.fullmatch(token):
            found.add(_SPLITS[match[1]])
        elif not (token.isdigit() or token in _GENERIC):
            return None
    return found.pop() if len(found) == 1 else "train" if found == {"train", "val"} else None


def split_in(name: str) -> str | None:
    """Return the split that the name of a file of labels says, among other words: `instances_train2017.json`."""
    *above, last = name.split("/")
    for part in (last, *reversed(above)):
        found = {_SPLITS[match[1]] for token in _tokens(part) if (match := _SPLIT.fullmatch(token))}
        if len(found) == 1:
            return found.pop()
    return None


def split_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the split of those folders beside one another that are splits.

    By their own names, or because two names differ in nothing but train, val and test (`xray_train`, `xray_test`).
    """
    names = list(names)
    found = {name: split for name in names if (split := split_of(name))}
    without: dict[str, dict[str, str]] = {}
    for name in names:
        for match in _WITHIN.finditer(name.lower()):
            rest = f"{name[: match.start()]}\0{name[match.end() :]}".lower()
            without.setdefault(rest, {})[name] = _SPLITS[match[0]]
    for siblings in without.values():
        if len(set(siblings.values())) > 1:
            found |= siblings
    return found


def is_mask(folder: str) -> bool:
    """Say whether a folder beside one of pictures holds masks: `masks`, `lung masks`, `label`."""
    return not (MASKS | {"label"}).isdisjoint(_tokens(folder))


def holds_pictures(folder: str) -> bool:
    """Say whether a folder's name says no more than that it holds pictures."""
    return is_generic(folder) and not PICTURES.isdisjoint(_tokens(folder)) and not is_mask(folder)


def is_generic(name: str) -> bool:
    """Say whether a name is made of words that say nothing of what is to be seen: images, masks, color, fold0."""
    tokens = _tokens(name)
    return not all(map(str.isdigit, tokens)) and all(token.isdigit() or token in _GENERIC for token in tokens)


def are_parts(names: Iterable[str]) -> bool:
    """Say whether names beside one another are parts of one set: all generic, or alike but for a part's number."""
    names = list(names)
    alike = {re.sub(r"\d+", "", name) for name in names}
    numbered = len(names) > 1 and len(alike) == 1 and not _GENERIC.isdisjoint(_tokens(alike.pop()))
    return bool(names) and (numbered or all(map(is_generic, names)))


def _tokens(name: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(name)]
