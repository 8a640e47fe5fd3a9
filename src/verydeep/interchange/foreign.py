"""What a reader finds in somebody else's file, and the network made of it."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.interchange.graph import FULLY_CONNECTED, Step, check_vgg
from verydeep.interchange.ilsvrc import class_names
from verydeep.nets.config import STRIDE, NetworkConfig
from verydeep.nets.configurations import CHANNELS, CONFIGURATIONS, Configuration
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import make_empty

TORCHVISION = Preprocessing(value_range=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), pool_round_up=False)
"""RGB in [0, 1], ImageNet's mean and standard deviation; pools round down. timm's VGGs are the same networks."""

CAFFE = Preprocessing(channel_order="BGR")
"""The authors': BGR in [0, 255], the mean subtracted; pools round up."""

KERAS = Preprocessing(channel_order="BGR", pool_round_up=False)
"""The authors' input, as Keras's `preprocess_input` makes it; its pools round down."""

PREPROCESSINGS = {"torchvision": TORCHVISION, "timm": TORCHVISION, "caffe": CAFFE, "keras": KERAS}


@dataclass(frozen=True)
class Entry:
    """One array of a foreign file, not read yet.

    Attributes
    ----------
    theirs : str
        What the file calls it.
    shape : tuple of int
        Its shape as `read` gives it: convolutions are outputs x inputs x height x width, fully connected layers the
        same or outputs x inputs.
    read : callable
        Returns the values as a tensor; called once, after the shape was found to be right.
    channels_last : bool
        For outputs x inputs: whether the inputs are a flattened height x width x channels (Keras), not channels x
        height x width (Caffe, torchvision).
    """

    theirs: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    channels_last: bool = False


@dataclass(frozen=True)
class Naming:
    """How a format calls the tensors of one configuration.

    Attributes
    ----------
    configuration : Configuration
        The configuration.
    batch_norm : bool
        Whether its convolutions are followed by batch norm.
    theirs : dict of str to str
        The format's name of every tensor by ours, `conv1_1.weight`.
    """

    configuration: Configuration
    batch_norm: bool
    theirs: Mapping[str, str]


@dataclass(frozen=True)
class Foreign:
    """The content of a foreign file.

    Attributes
    ----------
    kind : str
        The format, as users call it.
    entries : dict of str to Entry
        Its arrays by the names under which `namings` know them.
    namings : tuple of Naming
        What the names may mean; the one that fits best is taken.
    preprocessing : Preprocessing
        What the file's own software does to pictures.
    classes : tuple of str, optional
        Class names in order, where the file has them.
    lrn_alpha : float, optional
        Constant of a local response normalization behind the first block; None where there is none.
    description : dict, optional
        What `verydeep convert --to` wrote beside the weights: all that such a file does not hold by itself.
    steps : tuple of Step
        What the file computes, where it says that; none where it holds arrays alone.
    """

    kind: str
    entries: Mapping[str, Entry]
    namings: tuple[Naming, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None = None
    lrn_alpha: float | None = None
    description: dict[str, Any] | None = None
    steps: tuple[Step, ...] = ()


def check_normalization(where: str, alpha: float, *, size: int, beta: float, k: float, pools: int) -> float:
    """Return the constant of a local response normalization in Krizhevsky's written formula.

    Parameters
    ----------
    where : str
        File and layer, for messages.
    alpha : float
        As Caffe and ONNX have it, which divide it by the window's size; the formula does not.
    size, beta, k : number
        The other constants.
    pools : int
        How many pools come before it.

    Raises
    ------
    UserError
        The other constants, or its place, are not A-LRN's.
    """
    if (size, f"{beta:.6g}", f"{k:.6g}", pools) != (5, "0.75", "2", 0):
        raise UserError(
            f"{where}: expected a local response normalization of size 5, beta 0.75, k 2 in the first block, as in "
            f"A-LRN, found size {size}, beta {beta:g}, k {k:g} behind {pools} pools"
        )
    return float(f"{alpha / size:.7g}")


def parse_description(text: str | bytes | None, path: Path) -> dict[str, Any] | None:
    """Return what `verydeep convert --to` wrote beside the weights; None where there is nothing.

    Raises
    ------
    UserError
        It is no JSON object.
    """
    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: verydeep's metadata is damaged ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: verydeep's metadata is damaged (no JSON object)")
    return values


def our_names(configuration: Configuration, batch_norm: bool = False) -> list[str]:
    """Return the names of a configuration's tensors, in order."""
    names = []
    for b, block in enumerate(configuration.blocks, start=1):
        for i in range(1, len(block) + 1):
            names += [f"conv{b}_{i}.weight", f"conv{b}_{i}.bias"]
            if batch_norm:
                parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
                names += [f"bn{b}_{i}.{part}" for part in parts]
    return names + [f"{name}.{part}" for name in FULLY_CONNECTED for part in ("weight", "bias")]


OUR_NAMINGS = tuple(
    Naming(configuration, batch_norm, {name: name for name in our_names(configuration, batch_norm)})
    for configuration in CONFIGURATIONS.values()
    for batch_norm in (False, True)
    if not configuration.lrn
)
"""For readers that give the tensors our own names."""


def name_in_order(layers: list[tuple[int, int]]) -> list[str]:
    """Name layers that a file has in order but under no names of ours.

    Parameters
    ----------
    layers : list of (int, int)
        Kernel side and output channels of the convolutions, input to output, the fully connected layers left out.

    Returns
    -------
    list of str
        `conv1_1` and so on: the names of the configuration that fits best, leaving out what is missing; `extra` and
        a number for layers that it has not.
    """
    base = layers[0][1] / CHANNELS[0] if layers else 1.0
    found = [(kernel, round(channels / base)) for kernel, channels in layers]
    best: tuple[float, list[str]] = (-1.0, [])
    for configuration in CONFIGURATIONS.values():
        expected = [(conv.kernel, conv.channels) for block in configuration.blocks for conv in block]
        names = [f"conv{b}_{i}" for b, block in enumerate(configuration.blocks, 1) for i in range(1, len(block) + 1)]
        if [kernel for kernel, _ in expected] == [kernel for kernel, _ in found]:
            return names  # a wrong number of channels is told later, by the layer's name
        matcher = SequenceMatcher(None, expected, found, autojunk=False)
        given = [f"extra{i}" for i in range(1, len(found) + 1)]
        for match in matcher.get_matching_blocks():
            given[match.b : match.b + match.size] = names[match.a : match.a + match.size]
        best = max(best, (matcher.ratio(), given), key=lambda pair: pair[0])
    return best[1]


def to_network(foreign: Foreign, path: Path, classes: tuple[str, ...] | None = None) -> VGG:
    """Make the network that a foreign file holds.

    Parameters
    ----------
    foreign : Foreign
        What its reader found.
    path : Path
        The file, for messages.
    classes : tuple of str, optional
        Names of the classes in order, in place of the file's or of ILSVRC's.

    Returns
    -------
    VGG
        Evaluation mode. Where the file has no fully connected layers at all, it is a trunk, cut behind pool5.

    Raises
    ------
    UserError
        A layer is missing, too much, of another shape or not finite: the message names it.
    """
    # What verydeep wrote is a VGG; it may have its preprocessing in front.
    several = bool(foreign.steps) and foreign.description is None and check_vgg(foreign.steps, str(path))
    naming = _best_naming(foreign, path)
    found = {ours: foreign.entries[theirs] for ours, theirs in naming.theirs.items() if theirs in foreign.entries}
    known = set(naming.theirs.values())
    extra = [entry for theirs, entry in foreign.entries.items() if theirs not in known]
    net = _empty(foreign, naming, found, path, classes)
    expected = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    for name, shape in expected.items():
        _check(name, shape, found.get(name), naming, path)
    if extra:
        raise UserError(
            f"{path}: {extra[0].theirs}: configuration {naming.configuration.name} has no such layer "
            f"(the file has {len(extra)} arrays too many): is it another network?"
        )
    state = {name: _values(name, shape, found[name], path) for name, shape in expected.items()}
    net.load_state_dict(state, assign=True)
    net.provenance = {**net.provenance, "format": foreign.kind, **({"multi_label": True} if several else {})}
    return net.eval()


def _best_naming(foreign: Foreign, path: Path) -> Naming:
    """Return the naming with the fewest names missing or too many; then that whose kernels fit."""

    def misfit(naming: Naming) -> tuple[int, int, int]:
        theirs = set(naming.theirs.values())
        known = {entry for entry in foreign.entries if entry in theirs}
        kernels = sum(
            f"conv{b}_{i}.weight" in naming.theirs
            and (entry := foreign.entries.get(naming.theirs[f"conv{b}_{i}.weight"])) is not None
            and entry.shape[2:] != (conv.kernel, conv.kernel)
            for b, block in enumerate(naming.configuration.blocks, 1)
            for i, conv in enumerate(block, 1)
        )
        too_many = len(foreign.entries) - len(known)
        return len(theirs) - len(known) + too_many, kernels, too_many

    naming = min(foreign.namings, key=misfit)
    if foreign.lrn_alpha is None:
        return naming
    if naming.configuration.name != "A":
        letter = naming.configuration.name
        raise UserError(f"{path}: has local response normalization, which of the paper's networks A has, not {letter}")
    return replace(naming, configuration=CONFIGURATIONS["A-LRN"])


def _empty(
    foreign: Foreign,
    naming: Naming,
    found: Mapping[str, Entry],
    path: Path,
    classes: tuple[str, ...] | None,
) -> VGG:
    """Return the network without its weights: of the file's own description, or of what the shapes say."""
    if foreign.description is not None:
        # Batch norm may have been folded on the way out; all else is as it was.
        return make_empty({**foreign.description, "batch_norm": naming.batch_norm}, str(path), VGG)
    shapes = {name: entry.shape for name, entry in found.items()}
    width = _width(naming.configuration, shapes)
    fc_width = _most_common(
        [shapes[name][axis] for name, axis in _FC_WIDTHS if len(shapes.get(name, ())) > axis], default=4096
    )
    config = NetworkConfig(
        naming.configuration,
        (),
        width=width,
        batch_norm=naming.batch_norm,
        image_size=_window(shapes, path) * STRIDE,
        fc_width=max(1, fc_width),
        lrn_alpha=foreign.lrn_alpha if foreign.lrn_alpha is not None else 1e-4,
        preprocessing=foreign.preprocessing,
        trunk="pool5",
    )
    if any(name.startswith(FULLY_CONNECTED) for name in found):
        count = shapes["fc8.weight"][0] if shapes.get("fc8.weight") else len(classes or foreign.classes or range(1000))
        config = replace(config, classes=_classes(count, classes, foreign.classes, path), trunk=None)
    elif classes is not None:
        raise UserError(f"{path}: class names are given, and it has no fully connected layers, so no classes")
    with torch.device("meta"):
        return VGG(config)


_FC_WIDTHS = (("fc6.weight", 0), ("fc7.weight", 0), ("fc7.weight", 1), ("fc8.weight", 1))


def _most_common(values: Iterable[int], default: int) -> int:
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else default


def _width(configuration: Configuration, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the factor on the channels that most convolutions agree with."""
    outputs = [
        (shapes[name][0], conv.channels)
        for b, block in enumerate(configuration.blocks, 1)
        for i, conv in enumerate(block, 1)
        if shapes.get(name := f"conv{b}_{i}.weight")
    ]
    candidates = [channels / full for channels, full in outputs if channels > 0] or [1.0]
    return max(candidates, key=lambda width: sum(max(1, round(full * width)) == n for n, full in outputs))


def _window(shapes: Mapping[str, tuple[int, ...]], path: Path) -> int:
    """Return the side of fc6's window on pool5's map."""
    shape = shapes.get("fc6.weight")
    if shape is None or len(shape) < 2:
        return 7
    if len(shape) == 4:
        return max(1, shape[2])
    last = [name for name in shapes if name.startswith("conv") and name.endswith(".weight") and shapes[name]][-1:]
    channels = shapes[last[0]][0] if last else CHANNELS[-1]
    side = isqrt(shape[1] // max(1, channels))
    if side < 1 or side * side * channels != shape[1]:
        raise UserError(
            f"{path}: fc6.weight: {shape[1]} inputs are no square window on the {channels} channels of pool5; "
            f"expected {7 * 7 * channels} for images of 224"
        )
    return side


def _classes(count: int, given: tuple[str, ...] | None, in_file: tuple[str, ...] | None, path: Path) -> tuple[str, ...]:
    for names in (given, in_file):
        if names is not None:
            if len(names) != count:
                raise UserError(f"{path}: the network has {count} classes, and {len(names)} class names are given")
            return names
    return class_names() if count == 1000 else tuple(str(i) for i in range(count))


def _check(name: str, expected: tuple[int, ...], entry: Entry | None, naming: Naming, path: Path) -> None:
    theirs = entry.theirs if entry else naming.theirs.get(name, name)
    label = name if theirs == name else f"{name} ({theirs} in the file)"
    if entry is None:
        raise UserError(f"{path}: {label}: expected {_shape(expected)}, found no such layer")
    flat = (expected[0], expected[1] * expected[2] * expected[3]) if len(expected) == 4 else expected
    if entry.shape != expected and not (name.startswith(FULLY_CONNECTED) and entry.shape == flat):
        raise UserError(f"{path}: {label}: expected {_shape(expected)}, found {_shape(entry.shape)}")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _values(name: str, shape: tuple[int, ...], entry: Entry, path: Path) -> Tensor:
    """Read one array; return it in our layout, as our own."""
    try:
        tensor = entry.read()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: {name} ({entry.theirs} in the file): is damaged ({error})") from None
    if name.endswith("num_batches_tracked"):
        return tensor.to(torch.int64).reshape(shape)
    tensor = tensor.to(torch.float32)
    if entry.channels_last and len(shape) == 4:
        outputs, channels, height, width = shape
        tensor = tensor.reshape(outputs, height, width, channels).permute(0, 3, 1, 2)
    tensor = tensor.reshape(shape).contiguous()
    least, most = torch.aminmax(tensor)  # takes no memory beside the tensor; not-a-number passes through
    if not (torch.isfinite(least) and torch.isfinite(most)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise UserError(
            f"{path}: {name} ({entry.theirs} in the file): expected numbers, found {bad} of {tensor.numel()} values "
            "that are not finite (NaN or infinite): the file is damaged or its training diverged"
        )
    return tensor
