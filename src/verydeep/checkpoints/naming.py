"""The paper's names for a file's layers: by the file's own names or in order, and the configuration that fits them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.checkpoints.layers import Array, BatchNorm, Checkpoint, Conv, Dense, Layer, MaxPool, Weighted
from verydeep.nets.configurations import CHANNELS, CONFIGURATIONS, Configuration
from verydeep.nets.configurations import Conv as OurConv

FULLY_CONNECTED = ("fc6", "fc7", "fc8")
NORM_PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def our_names(configuration: Configuration, batch_norm: bool = False) -> list[str]:
    """Return the names of a configuration's tensors, in order."""
    names = []
    for block, i, _ in convolutions_of(configuration):
        names += [f"conv{block}_{i}.weight", f"conv{block}_{i}.bias"]
        if batch_norm:
            names += [f"bn{block}_{i}.{part}" for part in NORM_PARTS]
    return names + [f"{name}.{part}" for name in FULLY_CONNECTED for part in ("weight", "bias")]


def name_layers(layers: Sequence[Layer], checkpoint: Checkpoint, path: Path) -> list[Layer]:
    """Return the layers with the paper's names on those with weights, by the file's own names or in order."""
    weighted = [layer for layer in layers if isinstance(layer, Conv | Dense)]
    if len(weighted) < 4 and not checkpoint.names:
        raise UserError(f"{path}: has {len(weighted)} layers with weights; the smallest VGG has 8")
    start = head_start(layers)
    fully = [w for w in layers[start:] if isinstance(w, Conv | Dense) and not (w.ours or "").startswith("conv")]
    convolutions = [w for w in weighted if not any(w is other for other in fully)]
    names = [*_names_of_convolutions(convolutions), *_names_of_head(fully, checkpoint.graph)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: {twice[0]}: there are two layers of this name")
    ours = {id(layer): name for layer, name in zip([*convolutions, *fully], names, strict=True)}
    named, last = list[Layer](), ""
    for layer in layers:
        if isinstance(layer, Conv | Dense):
            last = ours[id(layer)]
            layer = replace(layer, ours=last)
        elif isinstance(layer, BatchNorm):
            layer = replace(layer, ours=last.replace("conv", "bn") if last.startswith("conv") else f"norm of {last}")
        named.append(layer)
    return named


def head_start(layers: Sequence[Layer]) -> int:
    """Return where the fully connected layers begin, which may be written as convolutions."""
    pools = 0
    for place, layer in enumerate(layers):
        pools += isinstance(layer, MaxPool)
        if isinstance(layer, Conv):
            named = layer.ours in FULLY_CONNECTED
            if named or pools == 5 or (layer.ours is None and place and layer.sides[0] > 5):
                return place
        elif isinstance(layer, Dense):
            return place
    return len(layers)


def _names_of_convolutions(layers: Sequence[Conv | Dense]) -> list[str]:
    named = [layer.ours for layer in layers]
    if layers and named.count(None) <= len(named) / 2:
        return [layer.ours or f"extra {layer.name}" for layer in layers]
    return _name_in_order([(layer.sides[-1], layer.shape[0]) for layer in layers])


def _names_of_head(layers: Sequence[Weighted], graph: bool) -> list[str]:
    named = [layer.ours for layer in layers]
    if any(named) and (not graph or len(layers) == len(FULLY_CONNECTED)):
        if named[-1] is None and "fc8" not in named:
            named[-1] = "fc8"  # a fine-tuned network's last layer usually bears another name
        return [ours or f"extra {layer.name}" for ours, layer in zip(named, layers, strict=True)]
    return [*head_names(len(layers) - 1), FULLY_CONNECTED[-1]][: len(layers)]


def head_names(count: int) -> list[str]:
    """Return our names of so many fully connected layers before `fc8`."""
    return ["fc6", "fc7", *(f"fc7_{number}" for number in range(2, count))][: max(count, 0)]


def _name_in_order(layers: list[tuple[int, int]]) -> list[str]:
    """Name convolutions, by kernel side and output channels, that a file has in order but under no names of ours.

    Names are those of the configuration that fits best, leaving out what is missing; `extra` and a number for layers
    that it has not.
    """
    base = layers[0][1] / CHANNELS[0] if layers else 1.0
    found = [(kernel, round(channels / base) if base else 0) for kernel, channels in layers]
    best: tuple[float, list[str]] = (-1.0, [])
    for configuration in CONFIGURATIONS.values():
        expected = [(conv.kernel, conv.channels) for _, _, conv in convolutions_of(configuration)]
        names = [f"conv{block}_{i}" for block, i, _ in convolutions_of(configuration)]
        if [kernel for kernel, _ in expected] == [kernel for kernel, _ in found]:
            return names  # a wrong number of channels is told later, by the layer's name
        matcher = SequenceMatcher(None, expected, found, autojunk=False)
        given = [f"extra{i}" for i in range(1, len(found) + 1)]
        for match in matcher.get_matching_blocks():
            given[match.b : match.b + match.size] = names[match.a : match.a + match.size]
        best = max(best, (matcher.ratio(), given), key=lambda pair: pair[0])
    return best[1]


def convolutions_of(configuration: Configuration) -> Iterator[tuple[int, int, OurConv]]:
    """Yield block and place, both counted from 1, of a configuration's convolutions, and the convolution."""
    for b, block in enumerate(configuration.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            yield b, i, conv


def best_fit(arrays: Mapping[str, Array], known_names: Mapping[str, str]) -> tuple[Configuration, bool]:
    """Return configuration and batch norm with the fewest arrays missing or too many; another kernel counts as both."""

    def misfit(fit: tuple[Configuration, bool]) -> tuple[int, int]:
        names = set(our_names(*fit))
        known = len(names & arrays.keys())
        kernels = sum(
            name in arrays and arrays[name].shape[2:] != (conv.kernel, conv.kernel)
            for name, conv in ((f"conv{b}_{i}.weight", conv) for b, i, conv in convolutions_of(fit[0]))
        )
        too_many = len(arrays) - known
        return len(names) - known + too_many + 4 * kernels, too_many

    fits = [(each, norm) for each in CONFIGURATIONS.values() if not each.lrn for norm in (False, True)]
    return min((fit for fit in fits if not known_names or our_names(*fit) == [*known_names]), key=misfit)
