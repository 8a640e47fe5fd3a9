"""What a run takes from the weights it starts from: settings, layers; and how layers begin that are not taken."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.nets.initialization import copy_layers
from verydeep.nets.layers import Auxiliary, ConvLinear
from verydeep.nets.network import Network as Net
from verydeep.training.recipe import Network, Recipe, complete, read_values
from verydeep.training.task import Task

NETWORK = ("width", "batch_norm", "image_size", "fc_width", "dropout", "lrn_alpha")
"""The recipe's section `network`."""


def head(net: Net) -> tuple[str, ...]:
    """Return the fully connected layers: of the paper's networks fc6, fc7, fc8; the last one gives the classes."""
    hidden = (name for name, layer in net.named_children() if isinstance(layer, ConvLinear))
    return tuple(dict.fromkeys([*hidden, net.config.classifier]))


def recipe_from(source: Net, recipe: str | Path, overrides: Iterable[str]) -> Recipe:
    """Return a recipe whose network and input are those of the weights to start from, but for `overrides`.

    Its training scales are its own, unless it names none or is for another window than the source's: then they are the
    source's, or, where these are not known, in the proportion of 256 to 224.
    """
    values = read_values(recipe)
    changes = [f"network.{key}={_toml(getattr(source.config, key))}" for key in NETWORK]
    changes += [f"images.{key}={_toml(value)}" for key, value in _input(source).items()]
    window = values.get("network", {}).get("image_size", Network().image_size)
    if "scales" not in values.get("images", {}) or window != source.image_size:
        usual = [round(source.image_size * 256 / 224)] * 2
        changes += [f"images.scales={list(source.provenance.train_scales or usual)}"]
    return complete(values, [*changes, *overrides], recipe)


def _input(net: Net) -> dict[str, Any]:
    """Return the keys of a recipe's section `images` that the weights were made for."""
    preprocessing = net.preprocessing
    return {
        "interpolation": preprocessing.interpolation,
        "pool_round_up": preprocessing.pool_round_up,
        "divide_by_std": preprocessing.std != (1.0, 1.0, 1.0),
    }


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def layers_taken(source: Net, network: Net, recipe: Recipe, task: Task) -> tuple[str, ...]:
    """Return the layers with weights that `network` takes over from `source`."""
    wanted: Sequence[str] | None = recipe.initialization.copy_layers
    if wanted == "auto":
        wanted = task.layers_to_copy(source, network)
    names = _layers(network) if wanted is None else tuple(wanted)
    absent = (*recipe.initialization.reset, *source.provenance.untrained_layers)
    if source.config.trunk is not None or source.config.head != network.config.head:
        absent += head(network)
    if source.config.descriptor is not None:  # it ends with a classifier on normalized descriptors, trained no further
        absent += head(network)[-1:]
    taken = tuple(name for name in names if name not in absent)
    if network.config.classifier in taken:
        return taken
    beside = {name for name, module in network.named_children() if isinstance(module, Auxiliary)}  # of the same classes
    return tuple(name for name in taken if name not in beside)


def check_fits(source: Net, network: Net, recipe: Recipe, task: Task, where: str | Path) -> None:
    """Raise one UserError that names all that keeps `network` from taking its layers over from `source`.

    The weights of `network` may lie on the meta device; classes are `check_classes`' matter.
    """
    known = _layers(network)
    if unknown := [name for name in recipe.initialization.reset if name not in known]:
        raise UserError(
            f"--reset {unknown[0]}: {network.configuration.name} has no such layer; it has {', '.join(known)}"
        )
    taken = layers_taken(source, network, recipe, task)
    keys = [key for key in NETWORK[:4] if key not in ("image_size", "fc_width") or set(taken) & {*head(network)}]
    pairs = {f"network.{key}": (getattr(source.config, key), getattr(network.config, key)) for key in keys}
    pairs |= {f"images.{key}": (value, getattr(recipe.images, key)) for key, value in _input(source).items()}
    if recipe.images.mean != "measured":
        pairs["images.mean"] = (_grey_levels(source), tuple(recipe.images.mean))
    differences = [f"{key} is {_toml(a)} there, {_toml(b)} here" for key, (a, b) in pairs.items() if a != b]
    if not differences:  # else hardly a layer fits
        differences = [text for name in taken if (text := _other_shape(source, network, name))]
    if differences:
        raise UserError(
            f"--init-from {where}: its weights do not fit: {'; '.join(differences)}; leave out what asks for another "
            "network or input than theirs (--set), begin such layers anew (--reset), or start from other weights"
        )


def check_classes(source: Net, classes: Sequence[str], taken: Sequence[str], where: str | Path) -> None:
    """Raise UserError where the last layer is taken over and the classes are not those that it knows."""
    last = source.config.classifier
    if last in taken and source.classes != tuple(classes):
        raise UserError(
            f"--init-from {where}: its network knows {len(source.classes)} classes ({source.classes[0]}, ...), the "
            f"data set has {len(classes)} ({classes[0]}, ...); they must be the same, or --reset {last}"
        )


def _grey_levels(net: Net) -> tuple[float, ...]:
    return tuple(255 / net.preprocessing.value_range * value for value in net.preprocessing.mean)


def _layers(net: Net) -> tuple[str, ...]:
    return net.weighted


def _other_shape(source: Net, network: Net, name: str) -> str:
    theirs, ours = (_shapes(net, name) for net in (source, network))
    if not theirs or not ours:
        return f"{name} is missing {'here' if theirs else 'there'}"
    for key, here in ours.items():
        there = theirs.get(key, ())
        if name == network.config.classifier:  # outputs are classes
            there, here = there[1:], here[1:]
        if there != here:
            return f"{key} is {there} there, {here} here"
    return ""


def _shapes(net: Net, name: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's weights by the names of its layers: of most modules its own alone."""
    weights = (key for key in net.state_dict() if key.startswith(f"{name}.") and key.endswith(".weight"))
    return {key.removesuffix(".weight"): tuple(net.state_dict()[key].shape) for key in weights}


def take_over(source: Net, network: Net, taken: Sequence[str]) -> tuple[str, ...]:
    """Copy layers with their batch norm; return the fully connected layers that are left as they were drawn."""
    copy_layers(source, network, tuple(taken))
    return tuple(name for name in head(network) if name not in taken)


@torch.no_grad()
def fit_new_layers(net: Net, layers: Sequence[str], images: Tensor, share: Callable[[float], float] = float) -> None:
    """Make new fully connected layers begin well on what the layers below them give, whatever its size.

    Hidden layers, as they were drawn, are divided by the root mean square of their outputs on some images (as Mishkin &
    Matas, 2016, do layer by layer); weights and biases of the last one become 0, so that all classes are equally
    probable at first, and a localizer answers zeros. Images are uint8, N x crop x crop x 3, RGB; `share` makes a number
    the same in all processes.
    """
    training = net.training
    net.eval()
    x, reached = net.preprocessing(images), None
    names, (*hidden, last) = net.layer_names, head(net)
    for name in hidden:
        below = names[names.index(name) - 1]
        if name in layers:
            x, reached = net.activations(x, below, after=reached), below
            size = share(float(net.activations(x, name, after=reached).square().mean().sqrt()))
            if 0 < size < math.inf:  # else nothing, or no number, comes out of the layers below
                net.get_submodule(name).weight.div_(size)  # type: ignore[operator]
    if last in layers and last == names[-1]:  # a ReLU behind zeros would never let them go
        for parameter in net.get_submodule(last).parameters():
            parameter.zero_()
    net.train(training)
