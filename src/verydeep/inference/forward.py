"""Views through the network: a forward pass that makes posteriors and keeps to its memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import NotFiniteError, UserError
from verydeep.inference.combine import Rows, combine
from verydeep.inference.memory import bytes_per_view, release_memory
from verydeep.inference.options import Options, PoolRounding
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Run, Runtime, layers_by, pick_engine
from verydeep.inference.views import VIEWS, Picture, views
from verydeep.nets.architectures import Architecture
from verydeep.nets.network import Network

BATCHES_BETWEEN_RELEASES = 16
MOST_AT_ONCE = 256  # views; larger batches gain nothing and save progress less often


class Forward:
    """A network made ready for testing: on the runtime's device, with the choices of how scores become posteriors.

    Runs to several layers that pass the same `stops`, layers to be set before the first run, share the engine's copy of
    the weights up to there.

    `views` is how many will be run, where that is known: for few, engine `auto` is torch. UserError for a device or an
    engine that is not to be had here.
    """

    def __init__(self, net: Network, options: Options, runtime: Runtime, views: int | None = None) -> None:
        self.net, self.runtime = net, runtime
        self.device = pick_device(runtime.device)
        self.engine = pick_engine(runtime.engine, self.device, runtime.precision, views, net)
        place(net, self.device)
        _check_rounding(net, options)
        own: PoolRounding = "up" if net.preprocessing.pool_round_up else "down"
        self.options = replace(options, pool_rounding=options.pool_rounding or own)
        self._runs: dict[tuple[str, str | None], Run] = {}  # for each layer asked for, and the one before it
        self.stops: tuple[str, ...] = ()
        self._batches = 0

    @property
    def choices(self) -> dict[str, str | None]:
        """What was chosen about the test and is recorded with its result, JSON-able."""
        return {**self.options.to_dict(), "precision": self.runtime.precision}

    @contextmanager
    def testing(self) -> Iterator[None]:
        """Set the network to testing, with the pooling asked for, and set it back."""
        net, preprocessing, training = self.net, self.net.preprocessing, self.net.training
        net.preprocessing = replace(preprocessing, pool_round_up=self.options.pool_rounding == "up")
        net.eval()
        low = self.runtime.precision == "bf16"
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                yield
        finally:
            net.preprocessing = preprocessing
            net.train(training)

    @property
    def least_size(self) -> int:
        """Smallest image side in pixels that the network takes whole, with the pooling asked for."""
        with self.testing():
            return self.net.least_size

    def at_once(self, height: int, width: int) -> int:
        """Return how many views of this size share a batch: at least one."""
        with self.testing():
            return min(MOST_AT_ONCE, max(1, self.runtime.memory_for_layers // bytes_per_view(self.net, height, width)))

    def pictures_at_once(self, part: Protocol, height: int, width: int) -> int:
        """Return how many pictures share a batch, by the size of their views: at least one."""
        return max(1, self.at_once(height, width) // VIEWS[part.kind])

    def score_maps(self, images: Sequence[Picture]) -> Tensor:
        """Return the score maps of pictures of one size, float32 N x K x h x w, on the device.

        NotFiniteError where scores are not finite.
        """
        return self._run(images, self.net.layer_names[-1], "scores")

    def activations(self, images: Sequence[Picture], layer: str) -> Tensor:
        """Return what a layer gives for pictures of one size, float32 N x C x h x w, on the device.

        UserError where the network has no such layer, or values are not finite.
        """
        return self._run(images, layer, f"values at {layer}")

    def _run(self, images: Sequence[Picture], layer: str, what: str) -> Tensor:
        self.count_batch()
        # Copied to the device as bytes: a quarter of the floats' size.
        pixels = torch.from_numpy(np.stack(images)).to(self.device)
        with self.testing():
            values = self.layers(layer)(self.net.preprocessing(pixels)).float()
            if not bool(torch.isfinite(values).all()):
                raise NotFiniteError(
                    f"the network gives {what} that are not finite: its training diverged; use other weights"
                )
            return values

    def layers(self, layer: str, after: str | None = None) -> Run:
        """Return what runs the layers between two by the engine, made once; for use inside `testing`."""
        if (layer, after) not in self._runs:
            self._runs[layer, after] = self._made(layer, after)
        return self._runs[layer, after]

    def _made(self, layer: str, after: str | None) -> Run:
        names = [name for name in self.net.layer_names if name in {*self.stops, layer, after}]
        self.net.module_name(layer)  # must be there
        passed = names[names.index(after) + 1 if after else 0 : names.index(layer)]
        if not passed:
            return layers_by(self.engine, self.net, layer, after, self.runtime.precision)
        first, second = self.layers(passed[-1], after), self.layers(layer, passed[-1])
        return lambda x: second(first(x))

    def count_batch(self) -> None:
        """Give freed memory back now and then, between batches."""
        self._batches += 1
        if self._batches % BATCHES_BETWEEN_RELEASES == 0:
            release_memory()

    def check(self, protocol: Protocol) -> None:
        """Raise UserError where the network cannot be tested by a protocol, or not with these options."""
        protocol.check_scales(self.least_size, self.net.image_size)
        if protocol.kind != "descriptor":
            return
        about = self.net.config.descriptor
        if about is None:
            raise UserError(
                f"protocol {protocol}: is for networks that verydeep transfer made, whose classifier is one on "
                f"descriptors; this one is tested by dense@{','.join(map(str, protocol.scales))}, for example"
            )
        if about.copies > 1 and len(protocol.scales) != about.copies:
            raise UserError(
                f"protocol {protocol}: this network's classifier is one on {about.copies} scales stacked; give as "
                f"many, as in {default_protocol(self.net)}"
            )
        if (self.options.softmax, self.options.pool) != ("image", "mean"):
            raise UserError(
                f"protocol {protocol}: softmax and pool are about scores of places, and a descriptor has one score a "
                "class; leave them out, or take dense"
            )

    def descriptors(self, pictures: Sequence[Picture], layer: str, flip: bool) -> Rows:
        """Return a layer's map averaged over places, for pictures of one size (paper: appendix B); float32 (N, C).

        With `flip` the mean is taken over the mirror image, too.
        """
        means = self.activations(pictures, layer).mean(dim=(2, 3))
        if flip:
            mirrored = [picture[:, ::-1] for picture in pictures]
            means = (means + self.activations(mirrored, layer).mean(dim=(2, 3))) / 2
        return np.asarray(means.cpu().numpy(), np.float32)

    def by_descriptor(self, scales: Sequence[Sequence[Picture]]) -> NDArray[np.float32]:
        """Return the posteriors of N pictures, given at each scale, by the classifier on their descriptors, (N, K)."""
        about = self.net.config.descriptor
        assert about is not None
        parts = [self.descriptors(pictures, self.net.config.described, about.flip) for pictures in scales]
        rows = torch.from_numpy(combine([parts], about.aggregate, about.normalize)).double()
        weight, bias = (tensor.detach().cpu().double() for tensor in self._classifier.parameters())
        scores = functional.linear(rows, weight.flatten(1), bias)
        return np.asarray(self.net.posteriors(scores).numpy(), np.float32)

    @property
    def _classifier(self) -> nn.Module:
        return self.net.get_submodule(self.net.config.classifier)

    def posteriors(self, part: Protocol, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Return the posteriors of pictures from `views.prepare` whose views have one size, float32 (N, K).

        Each is the mean over the views of their soft-max posteriors; of a network for images of several classes (its
        provenance says `multi_label`), of one sigmoid a class.
        """
        crop, interpolation = self.net.image_size, self.net.preprocessing.interpolation
        every = [view for picture in pictures for view in views(part, crop, picture, interpolation)]
        size = self.at_once(*every[0].shape[:2])
        batches = (every[start : start + size] for start in range(0, len(every), size))
        posteriors = torch.cat([self._of_views(batch) for batch in batches])
        return posteriors.reshape(len(pictures), -1, posteriors.shape[1]).mean(dim=1).cpu().numpy()

    def _of_views(self, batch: Sequence[Picture]) -> Tensor:
        scores = self.score_maps(batch)
        if self.options.softmax == "location":
            return self.net.posteriors(scores).mean(dim=(2, 3))
        return self.net.posteriors(scores.amax(dim=(2, 3)) if self.options.pool == "max" else scores.mean(dim=(2, 3)))


def _check_rounding(net: Network, options: Options) -> None:
    """Refuse to round pools otherwise than a network does whose weights fit one way alone."""
    own = net.preprocessing.pool_round_up
    if isinstance(net.configuration, Architecture) and options.pool_rounding not in (None, "up" if own else "down"):
        raise UserError(
            f"option pool-rounding {options.pool_rounding}: the pools of {net.configuration.name} round "
            f"{'up' if own else 'down'}, as its paper has it; leave the option out"
        )
