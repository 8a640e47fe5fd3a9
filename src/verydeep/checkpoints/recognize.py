"""The network that a file's layers make: every reader's list of layers becomes one of ours here, or is refused."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.checkpoints.class_names import class_names
from verydeep.checkpoints.head import plain_head
from verydeep.checkpoints.inputs import fold_input
from verydeep.checkpoints.layers import (
    Array,
    BatchNorm,
    Checkpoint,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Mean,
    Other,
    Pad,
    Relu,
    Sigmoid,
    Softmax,
    Weighted,
)
from verydeep.checkpoints.naming import FULLY_CONNECTED, best_fit, convolutions_of, head_start, name_layers
from verydeep.nets import plain
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.nets.config import STRIDE, NetworkConfig
from verydeep.nets.configurations import CHANNELS, CONFIGURATIONS, Configuration
from verydeep.nets.layers import LocalResponseNorm as OurNorm
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import make_empty

_EPSILON = 1e-5
"""Of our batch norm; another one in the file is moved into the variance."""


def recognize(
    checkpoint: Checkpoint, path: Path, classes: tuple[str, ...] | None = None, *, stated: bool = False
) -> VGG:
    """Make the network, in evaluation mode, that a file's layers are.

    `classes` stand in place of the file's or of ILSVRC's; with `stated` the checkpoint's preprocessing is what the user
    says, not what is usual. Where the file has no fully connected layers at all, the network is a trunk, cut behind
    pool5; where it ends with a sigmoid, or has one class, its provenance says `multi_label`. UserError names a layer
    that is none that the paper's networks have in its place, is missing, too much, of another shape or not finite.
    """
    name = str((checkpoint.description or {}).get("configuration", "A"))
    if name in ARCHITECTURES:
        raise UserError(f"{path}: holds {name}; such a network is read from verydeep's own weights file alone")
    layers, preprocessing = fold_input(checkpoint.layers, checkpoint.preprocessing, path, stated=stated)
    if checkpoint.description and checkpoint.description.get("descriptor"):
        # Our own export of a classifier on descriptors: no layer here stands for its division by a norm.
        layers = [layer for layer in layers if isinstance(layer, Weighted | MaxPool)]
        checkpoint = replace(checkpoint, graph=False)
    layers = _as_ours(layers)
    if checkpoint.graph or any(isinstance(layer, Relu) for layer in layers):
        start = _behind_pools(layers)
        cells = (checkpoint.image_size or NetworkConfig.image_size) // STRIDE
        channels = next((layer.shape[0] for layer in reversed(layers[:start]) if isinstance(layer, Conv)), 0)
        layers = [*layers[:start], *plain_head(layers[start:], channels, max(1, cells), path)]
    layers = name_layers(layers, checkpoint, path)
    arrays = _arrays(layers)
    configuration, batch_norm = best_fit(arrays, checkpoint.names)
    alpha = _normalization(layers, configuration, path)
    pools = [layer.round_up for layer in layers if isinstance(layer, MaxPool)]
    config = NetworkConfig(
        configuration if alpha is None else CONFIGURATIONS["A-LRN"],
        (),
        batch_norm=batch_norm,
        lrn_alpha=1e-4 if alpha is None else alpha,
        preprocessing=replace(preprocessing, pool_round_up=any(pools)) if pools else preprocessing,
        trunk="pool5",
    )
    if any(isinstance(layer, Other) for layer in layers):  # it is named before whatever else may not fit
        whole = replace(config, classes=("",), trunk=None) if "fc6.weight" in arrays else config
        _check_order(layers, _empty(whole), path, whole=checkpoint.graph)
    if checkpoint.description is not None:
        # Batch norm may have been folded on the way out; all else is as it was.
        net = make_empty({**checkpoint.description, "batch_norm": batch_norm}, str(path), VGG)
    else:
        net = _empty(_sized(config, arrays, classes, checkpoint.classes, path, graph=not checkpoint.names))
    _check_shapes(net, arrays, checkpoint.names, path)
    _check_settings(layers, path)
    _check_order(layers, net, path, whole=checkpoint.graph)
    last = any(layer.channels_last for layer in layers if isinstance(layer, Flatten))
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    net.load_state_dict({name: _values(name, shapes[name], arrays[name], last, path) for name in shapes}, assign=True)
    net.provenance = replace(net.provenance, format=checkpoint.kind)
    if checkpoint.description is None and _independent(layers, net):
        net.provenance = replace(net.provenance, multi_label=True)
    return net.eval()


def without_head(checkpoint: Checkpoint) -> Checkpoint:
    """Return the layers of a file up to its last pool, of the first five or of those there are, alone."""
    layers = [layer for layer in checkpoint.layers if not isinstance(layer, Dropout)]
    pools = [place for place, layer in enumerate(layers) if isinstance(layer, MaxPool)][:5]
    start = min(head_start(layers), pools[-1] + 1 if len(pools) == 5 else len(layers))
    kept = [one for one in layers[:start] if not isinstance(one, Flatten | Mean) and type(one) is not Weighted]
    return replace(checkpoint, layers=tuple(kept), description=None, names={})


def parse_description(text: str | bytes | None, path: Path) -> dict[str, Any] | None:
    """Return what `verydeep convert --to` wrote beside the weights; None where there is nothing.

    UserError: it is no JSON object.
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


def _as_ours(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers as the paper has them where that is the same function.

    Borders of zeros are padding of the convolutions behind them, a ReLU is before its pool, dropout is left out.
    """
    joined: list[Layer] = []
    for layer in layers:
        before = joined[-1] if joined else None
        if isinstance(layer, Conv) and isinstance(before, Pad):
            joined.pop()
            top, left, bottom, right = (a + b for a, b in zip(before.padding, layer.padding or (0,) * 4, strict=True))
            layer = replace(layer, padding=(top, left, bottom, right))
        if isinstance(layer, Relu) and isinstance(before, MaxPool):
            joined.insert(-1, layer)
        elif not isinstance(layer, Dropout):
            joined.append(layer)
    return joined


def _behind_pools(layers: Sequence[Layer]) -> int:
    """Return where the layers behind the last pool before the first fully connected layer begin."""
    start = head_start(layers)
    return max((place + 1 for place in range(start) if isinstance(layers[place], MaxPool | Conv | Relu)), default=start)


# -- settings and places


def _check_settings(layers: Sequence[Layer], path: Path) -> None:
    """Raise UserError where a convolution or pool is none of the paper's, wherever it stands."""
    for layer in layers:
        where = f"{path}: {layer.name}"
        if isinstance(layer, MaxPool) and {*layer.kernel, *layer.stride} != {2}:
            kernel, stride = (" x ".join(map(str, values)) for values in (layer.kernel, layer.stride))
            raise UserError(
                f"{where}: expected a 2 x 2 max-pool of stride 2, found {kernel} of stride {stride}: is it another "
                "network?"
            )
        if not isinstance(layer, Conv):
            continue
        for name, values in (("stride", layer.stride), ("dilation", layer.dilation), ("group", (layer.groups,))):
            if {*values} - {1}:
                found = " x ".join(map(str, dict.fromkeys(values)))
                raise UserError(f"{where}: expected {name} 1, found {found}: is it another network?")
        pad = 0 if (layer.ours or "").startswith("fc") else layer.sides[0] // 2
        if layer.padding is not None and {*layer.padding} != {pad}:
            sides = "{} above, {} left, {} below, {} right".format(*layer.padding)
            found = str(layer.padding[0]) if len({*layer.padding}) == 1 else sides
            raise UserError(f"{where}: expected pad {pad}, found {found}: is it another network?")


def _normalization(layers: Sequence[Layer], configuration: Configuration, path: Path) -> float | None:
    """Return the constant of a local response normalization in Krizhevsky's written formula; None without one."""
    pools, alpha = 0, None
    for layer in layers:
        pools += isinstance(layer, MaxPool)
        if not isinstance(layer, LocalResponseNorm):
            continue
        if (layer.size, f"{layer.beta:.6g}", f"{layer.k:.6g}", pools) != (5, "0.75", "2", 0):
            raise UserError(
                f"{path}: {layer.name}: expected a local response normalization of size 5, beta 0.75, k 2 in the first "
                f"block, as in A-LRN, found size {layer.size}, beta {layer.beta:g}, k {layer.k:g} behind {pools} pools"
            )
        alpha = float(f"{layer.alpha / layer.size:.7g}")
        if configuration.name not in ("A", "A-LRN"):
            letter = configuration.name
            raise UserError(
                f"{path}: has local response normalization, which of the paper's networks A has, not {letter}"
            )
    return alpha


def _check_order(layers: Sequence[Layer], net: VGG, path: Path, *, whole: bool) -> None:
    """Raise UserError for the first layer that is another one than the network has in its place.

    Of a file that is no graph, layers without weights may be missing: they are as in the paper.
    """
    rest, before, expected = list(layers), "the input", ""
    for kinds, ours, what in _steps(net, layers):
        expected = expected or what
        if rest and isinstance(rest[0], kinds) and (not ours or getattr(rest[0], "ours", None) == ours):
            before, expected = rest.pop(0).name, ""
        elif whole or ours:
            found = f"{rest[0].name}: is {rest[0].what}" if rest else "it ends there"
            raise UserError(f"{path}: {found}; expected {expected} behind {before}: is it another network?")
    for layer in rest:
        if not isinstance(layer, Flatten | Mean | Softmax | Sigmoid):
            raise UserError(f"{path}: {layer.name}: is {layer.what}, and a VGG has none there: is it another network?")


def _steps(net: VGG, layers: Sequence[Layer]) -> Iterable[tuple[Any, str, str]]:
    """Yield what must stand there of each layer of a network: its kinds, the paper's name, and what it is in words."""
    head = (layer for layer in layers if isinstance(layer, Weighted) and (layer.ours or "").startswith("fc"))
    first = next(head, None)
    dense, before = isinstance(first, Dense), False
    for layer in net.plain_layers():
        if isinstance(layer, plain.Conv):
            if dense and layer.name.startswith("fc") and not before:
                yield Flatten, "", "a flattening"
            before = layer.name.startswith("fc")
            yield (Conv, Dense), layer.name, layer.name
            if layer.norm:
                yield BatchNorm, layer.name.replace("conv", "bn"), "batch norm"
        elif isinstance(layer, plain.Relu):
            yield Relu, "", "a ReLU"
        elif isinstance(layer, plain.MaxPool):
            yield MaxPool, "", "a 2 x 2 max-pool of stride 2"
        elif isinstance(layer, plain.Normalization) and isinstance(layer.module, OurNorm):
            yield LocalResponseNorm, "", "local response normalization"


def _independent(layers: Sequence[Layer], net: VGG) -> bool:
    """Say whether each class has a posterior of its own: of a soft-max, one class alone would always get 100 %."""
    ends = [type(layer) for layer in layers if isinstance(layer, Softmax | Sigmoid)]
    return bool(net.classes) and (ends[-1:] == [Sigmoid] or (len(net.classes) == 1 and not ends))


# -- the network


def _arrays(layers: Sequence[Layer]) -> dict[str, Array]:
    """Return the arrays by our names of them."""
    arrays = {}
    for layer in layers:
        if not isinstance(layer, Weighted):
            continue
        for part, array in layer.arrays.items():
            arrays[f"{layer.ours}.{part}"] = array
        if isinstance(layer, BatchNorm):
            # torch counts batches since 0.4.1, and no other project does.
            arrays.setdefault(f"{layer.ours}.num_batches_tracked", Array(layer.name, (), lambda: torch.zeros(())))
            if variance := layer.arrays.get("running_var"):
                arrays[f"{layer.ours}.running_var"] = _shifted(variance, layer.epsilon - _EPSILON)
    return arrays


def _shifted(array: Array, shift: float) -> Array:
    return replace(array, read=lambda: array.read() + shift) if shift else array


def _empty(config: NetworkConfig) -> VGG:
    with torch.device("meta"):
        return VGG(config)


def _sized(
    config: NetworkConfig,
    arrays: Mapping[str, Array],
    given: tuple[str, ...] | None,
    in_file: tuple[str, ...] | None,
    path: Path,
    *,
    graph: bool,
) -> NetworkConfig:
    """Return the configuration with the sizes that the arrays' shapes tell, and with class names."""
    shapes, papers = {name: array.shape for name, array in arrays.items()}, config.configuration
    assert isinstance(papers, Configuration)
    widths = [shapes[name][axis] for name, axis in _FC_WIDTHS if len(shapes.get(name, ())) > axis]
    hidden = [shape[0] for name, shape in shapes.items() if _is_hidden(name) and shape]
    usual = {"fc6.weight", "fc7.weight"} <= shapes.keys() and len(hidden) == 2 and len({*hidden}) == 1
    config = replace(
        config,
        width=_width(papers, shapes),
        image_size=_window(papers, shapes, path) * STRIDE,
        fc_width=max(1, Counter(widths).most_common(1)[0][0] if widths else 4096),
    )
    if not any(name.startswith(FULLY_CONNECTED) for name in shapes):
        if given is not None:
            raise UserError(f"{path}: class names are given, and it has no fully connected layers, so no classes")
        return config
    count = shapes["fc8.weight"][0] if shapes.get("fc8.weight") else len(given or in_file or range(1000))
    head = None if usual or not graph else tuple(hidden)
    return replace(config, classes=_classes(count, given, in_file, path), trunk=None, head=head)


def _is_hidden(name: str) -> bool:
    return name.startswith("fc") and name.endswith(".weight") and not name.startswith("fc8")


_FC_WIDTHS = (("fc6.weight", 0), ("fc7.weight", 0), ("fc7.weight", 1), ("fc8.weight", 1))


def _width(configuration: Configuration, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Return the factor on the channels that most convolutions agree with."""
    outputs = [
        (shapes[name][0], conv.channels)
        for b, i, conv in convolutions_of(configuration)
        if shapes.get(name := f"conv{b}_{i}.weight")
    ]
    candidates = [channels / full for channels, full in outputs if channels > 0] or [1.0]
    best: float = max(candidates, key=lambda width: sum(max(1, round(full * width)) == n for n, full in outputs))
    return best


def _window(configuration: Configuration, shapes: Mapping[str, tuple[int, ...]], path: Path) -> int:
    """Return the side of fc6's window on pool5's map."""
    name = "fc6.weight" if "fc6.weight" in shapes or "fc7.weight" in shapes else "fc8.weight"
    shape = shapes.get(name)
    if shape is None or len(shape) < 2:
        return 7
    if len(shape) == 4:
        return max(1, shape[2])
    names = (f"conv{b}_{i}.weight" for b, i, _ in convolutions_of(configuration))
    channels = [*(shapes[name][0] for name in names if shapes.get(name)), CHANNELS[-1]][-2:][0]
    side = isqrt(shape[1] // max(1, channels))
    if side < 1 or side * side * channels != shape[1]:
        raise UserError(
            f"{path}: {name}: {shape[1]} inputs are no square window on the {channels} channels of pool5; "
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


def _check_shapes(net: VGG, arrays: Mapping[str, Array], names: Mapping[str, str], path: Path) -> None:
    """Raise UserError where an array is missing, of another shape, or too much."""
    expected = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    for name, shape in expected.items():
        array = arrays.get(name)
        theirs = array.name if array else names.get(name, name)
        label = f"{path}: {name if theirs == name else f'{name} ({theirs} in the file)'}: expected {_product(shape)}"
        if array is None:
            raise UserError(f"{label}, found no such layer")
        flat = (shape[0], shape[1] * shape[2] * shape[3]) if len(shape) == 4 else shape
        if array.shape != shape and not (name.startswith(FULLY_CONNECTED) and array.shape == flat):
            raise UserError(f"{label}, found {_product(array.shape)}")
    if extra := [array for name, array in arrays.items() if name not in expected]:
        raise UserError(
            f"{path}: {extra[0].name}: configuration {net.configuration.name} has no such layer "
            f"(the file has {len(extra)} arrays too many): is it another network?"
        )


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _values(name: str, shape: tuple[int, ...], array: Array, channels_last: bool, path: Path) -> Tensor:
    """Read one array; return it in our layout, as our own."""
    try:
        tensor = array.read()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: {name} ({array.name} in the file): is damaged ({error})") from None
    if name.endswith("num_batches_tracked"):
        return tensor.to(torch.int64).reshape(shape)
    tensor = tensor.to(torch.float32)
    if channels_last and len(shape) == 4 and len(array.shape) == 2:
        outputs, channels, height, width = shape
        tensor = tensor.reshape(outputs, height, width, channels).permute(0, 3, 1, 2)
    tensor = tensor.reshape(shape).contiguous()
    least, most = torch.aminmax(tensor)  # takes no memory beside the tensor; not-a-number passes through
    if not (torch.isfinite(least) and torch.isfinite(most)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise UserError(
            f"{path}: {name} ({array.name} in the file): expected numbers, found {bad} of {tensor.numel()} values "
            "that are not finite (NaN or infinite): the file is damaged or its training diverged"
        )
    return tensor
