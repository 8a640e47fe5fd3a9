"""Several layers of a network in one pass, for pictures whose numbers are said."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from verydeep.basics.errors import UserError
from verydeep.engines.compiled import NativeLayers, is_plain, is_trainable
from verydeep.engines.training import run_natively
from verydeep.inference.runtime import pick_engine
from verydeep.nets.network import Network
from verydeep.nets.plain import channels_out
from verydeep.perceptual.pixels import PictureOptions, Pixels
from verydeep.perceptual.trunk import describe_trunk, frozen


class Features(nn.Module):
    """Gives layers of a frozen network, from one pass that ends with the last of them. Made by `features`.

    Inside, a map is laid out as blocks of channels, N x B x h x w x L with C = B L: as the native engine has it (L is
    16, and zeros may stand behind the last channel) or as torch's channels last has it (B is 1). `pool` stands in for
    the pools: each layer but the first then begins behind one.
    """

    def __init__(
        self,
        net: Network,
        layers: Sequence[str],
        pool: Callable[[Tensor], Tensor] | None = None,
        **given: Unpack[PictureOptions],
    ) -> None:
        super().__init__()
        last = net.config.classifier
        if isinstance(layers, str) or not layers or len({*layers}) < len(layers) or last in layers:
            raise UserError(
                f"layers {layers!r}: expected one or more names before {last}, each once, such as {net.layer_names[1]}"
            )
        for layer in layers:
            net.module_name(layer)
        self.layers = tuple(layers)
        self.in_order = tuple(sorted(layers, key=net.layer_names.index))
        self.pixels = Pixels(given.get("range", (0, 1)), given.get("channels", "rgb"), given.get("check", "first"))
        self.pool, self.trunk = pool, describe_trunk(net)
        # Not a child: its weights are constants, which no optimizer is to see and no checkpoint to hold.
        self.frozen = (frozen(net, self.in_order[-1]),)
        begins = [f"pool{layer[4]}" for layer in self.in_order] if pool else self.in_order
        self.segments = tuple(zip([None, *begins[:-1]], self.in_order, strict=True))
        self.engine = pick_engine(given.get("engine", "auto"), torch.device("cpu"), net=net)
        self.native: list[NativeLayers] = []  # made when first needed
        self.checked = False

    @property
    def net(self) -> Network:
        """The network, cut behind the last layer."""
        return self.frozen[0]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the layers' maps, N x C x h x w each, by name, in the order in which they were asked for.

        `x` is N x 3 x H x W as `features` was told. UserError where it is not.
        """
        maps = self.walk(self.input(self.unit([x], ["the pictures"])[0]))
        widths = [self.channels(layer) for layer in self.in_order]
        found = {
            layer: blocks.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, :width]
            for layer, width, blocks in zip(self.in_order, widths, maps, strict=True)
        }
        return {layer: found[layer] for layer in self.layers}

    def unit(self, pictures: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
        """Return pictures as RGB from 0 to 1, checked as often as asked for; UserError, by their names, for others."""
        check = self.pixels.check
        now = (check == "always" or (check == "first" and not self.checked)) and not torch.compiler.is_compiling()
        unit = [self.pixels.unit(x, name, now) for x, name in zip(pictures, names, strict=True)]
        for x in unit:
            self.net.check_size(x.shape[2], x.shape[3])
        self.checked = self.checked or now
        return unit

    def input(self, unit: Tensor) -> Tensor:
        """Return RGB pictures from 0 to 1 as the network takes them."""
        return self.net.preprocessing.of_unit(unit)

    def walk(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the layers' maps as blocks, in the network's order, each computed when asked for; none is changed."""
        for number, (after, layer) in enumerate(self.segments):
            if self.pool and after:
                x = self.pool(x)
            if self.engine == "native" and is_plain(x) and not torch.compiler.is_compiling():
                x = self._native(number).blocks(x)
            else:
                given = x if x.dim() == 4 else x.permute(0, 1, 4, 2, 3).flatten(1, 2)
                x = self._by_torch(given, layer, after).permute(0, 2, 3, 1)[:, None]
            yield x

    def _by_torch(self, x: Tensor, layer: str, after: str | None) -> Tensor:
        """Return a layer's map on torch's tape; where a gradient is needed on a CPU, convolutions run natively."""
        native = self.engine == "native" and is_trainable(x) and not torch.compiler.is_compiling()
        return run_natively(self.net, x, layer, after) if native else self.net.activations(x, layer, after)

    def _native(self, number: int) -> NativeLayers:
        if not self.native:
            self.native = [NativeLayers(self.net, layer, after=after) for after, layer in self.segments]
        return self.native[number]

    def channels(self, layer: str) -> int:
        """Return how many channels a layer's map has."""
        return channels_out(self.net.plain_layers(None, layer))

    @property
    def provenance(self) -> dict[str, Any]:
        """What the maps were computed with and from; JSON-able."""
        return {
            "trunk": self.trunk.to_dict(),
            "layers": list(self.layers),
            "range": list(self.pixels.range),
            "channels": self.pixels.channels,
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.net._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is packed for this process; a copy packs it anew."""
        return {**self.__dict__, "native": []}

    def extra_repr(self) -> str:
        """Return what is given, of what, for which pictures."""
        pictures = f"range={self.pixels.range}, {self.pixels.channels}"
        return f"{', '.join(self.layers)}; trunk: {self.trunk}; pictures: {pictures}"


def features(net: Network, layers: Sequence[str], **given: Unpack[PictureOptions]) -> Features:
    """Return a module that gives several layers of a network in one pass, differentiable in the pictures alone.

    Parameters
    ----------
    net : Network
        A network or a trunk; its tensors are shared, and stay as they are. Batch norm runs as in testing.
    layers : sequence of str
        Any of `net.layer_names` before the classifier: `conv4_2` is before the ReLU, `conv4_2.relu` after it.
    range : {(0, 1), (-1, 1), (0, 255)}, default (0, 1)
        What black and white are in the pictures given. What the network itself wants, it says (`net.preprocessing`).
    channels : {"rgb", "bgr"}, default "rgb"
        Their order in the pictures given.
    check : {"first", "always", "never"}, default "first"
        Which calls compare the values with `range`; it waits for the device.
    engine : {"auto", "native", "torch"}, default "auto"
        What runs the layers on a CPU where no gradient is needed; see `verydeep.compile_cpu`.

    Returns
    -------
    Features
        A module without parameters: called with float N x 3 x H x W (or uint8 where `range` is (0, 255)) it returns a
        dict of the layers' maps, N x C x h x w, in the order asked for. `provenance` says which weights they are of.

    Raises
    ------
    UserError
        No such layer, a range or word that is none; in a call, values outside `range`, or pictures too small.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> net = create("D", 0, width=1 / 16, trunk="pool5")
    >>> maps = features(net, ["conv1_2.relu", "conv3_3"])(torch.rand(1, 3, 48, 64))
    >>> {name: tuple(map.shape) for name, map in maps.items()}
    {'conv1_2.relu': (1, 4, 48, 64), 'conv3_3': (1, 16, 12, 16)}
    """
    return Features(net, layers, None, **given)
