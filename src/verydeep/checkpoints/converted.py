"""Other projects' weights as files of ours: converted once, kept in the user's cache."""

import sys
from functools import cache
from pathlib import Path

from verydeep.basics.files import cache_folder, file_hash
from verydeep.basics.version import VERSION
from verydeep.checkpoints.public import fetch, is_name
from verydeep.checkpoints.reading import detect, load
from verydeep.nets.network import Network
from verydeep.nets.weights import save


def as_ours(source: str) -> Path:
    """Return the weights file of ours that a file or public name is, or was converted to; a line on stderr says which.

    That is the file itself where it is ours. Else one in the cache, named by the source's SHA-256 and by this version
    of verydeep, since another version may read the source otherwise. UserError for no such file or name, no network, or
    no network of ours.
    """
    path = fetch(source)[0] if is_name(source) else Path(source)
    if detect(path) == "verydeep":
        return path
    digest = file_hash(path)
    kept = cache_folder() / "converted" / VERSION / f"{path.stem}-{digest[:16]}.safetensors"
    told = f"{source} (SHA-256 {digest[:16]})"
    if kept.is_file():
        _say(f"{told}: as converted before, {kept}")
        return kept
    net = load(source)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save(net, kept)
    _say(f"{told}: {_described(net)}; converted, kept in {kept}")
    return kept


def _described(net: Network) -> str:
    """Say what was recognized, and the input that is assumed where the file does not state it."""
    own = net.preprocessing
    mean, std = (", ".join(f"{number:g}" for number in values) for values in (own.mean, own.std))
    what = (
        f"{len(net.classes)} {'independent ' if net.multi_label else ''}classes"
        if net.classes
        else f"a trunk up to {net.layer_names[-1]}"
    )
    return (
        f"{net.provenance.format}, configuration {net.configuration.name}, {what}; input {own.channel_order} from 0 "
        f"to {own.value_range:g}, mean {mean}, std {std} (R, G, B)"
    )


@cache  # once: a command asks for the same weights several times
def _say(text: str) -> None:
    print(f"verydeep: {text}", file=sys.stderr, flush=True)
