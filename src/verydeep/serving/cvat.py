"""CVAT's auto-annotation function: tags, boxes where a localizer is given, masks by a network for pixels.

`cvat-cli task auto-annotate TASK --function-module verydeep.serving.cvat -p weights=str:runs/B` calls it.
"""

from typing import Any

import numpy as np
from PIL.Image import Image

from verydeep.basics.extras import need
from verydeep.evaluation.predict import Predictor
from verydeep.inference.memory import parse_memory
from verydeep.inference.runtime import Runtime
from verydeep.localization.localize import Localizer
from verydeep.nets.families import load
from verydeep.nets.network import Network
from verydeep.segmentation.segmenter import Segmenter
from verydeep.training.run_folder import find_weights

SURE = 0.5
"""Posterior from which on a class is named where an image may have several."""


def create(
    weights: str, localizer: str | None = None, protocol: str | None = None, memory: str = "2GiB"
) -> "TagFunction | BoxFunction | MaskFunction":
    """Return the function that CVAT calls: of tags, of boxes with the weights or run of a localizer, or of masks."""
    net, runtime = load(find_weights(weights)), Runtime(memory=parse_memory(memory))
    if net.task == "segment" and localizer is None and protocol is None:
        return MaskFunction(Segmenter.of(net, runtime))
    net.check_task("classify", weights)
    if localizer is None:
        return TagFunction(Predictor(net, protocol, len(net.classes), runtime=runtime))
    found = Localizer(net, find_weights(localizer), protocol, top=1, runtime=runtime)
    return BoxFunction(net, found)


class TagFunction:
    """Tags each picture with its most probable class, or with every class of posterior 0.5 where it may have several.

    CVAT's threshold, where one is given, takes the place of 0.5; a less probable class is no tag.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._net = predictor, predictor.forward.net
        self.spec = _spec(self._net, "tag")

    def detect(self, context: Any, image: Image) -> list[Any]:
        """Return a picture's tags."""
        prediction = self._predictor(image)
        several = self._net.multi_label
        least = context.conf_threshold if context.conf_threshold is not None else SURE if several else 0.0
        candidates = prediction.top if several else prediction.top[:1]
        return [_cvat().tag(self._net.classes.index(name)) for name, posterior in candidates if posterior >= least]


class BoxFunction:
    """Draws a box around what each picture most probably shows."""

    def __init__(self, net: Network, localizer: Localizer) -> None:
        self._net, self._localizer = net, localizer
        self.spec = _spec(net, "rectangle")

    def detect(self, context: Any, image: Image) -> list[Any]:
        """Return a picture's box."""
        found = self._localizer(image).top
        least = context.conf_threshold or 0.0
        drawn = [one for one in found if one.posterior >= least and one.box[0] < one.box[2] and one.box[1] < one.box[3]]
        return [_cvat().rectangle(self._net.classes.index(one.name), list(one.box)) for one in drawn]


class MaskFunction:
    """Gives each picture a mask for each class that it says pixels are of."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.spec = _spec(segmenter.net, "mask")

    def detect(self, context: Any, image: Image) -> list[Any]:
        """Return a picture's masks."""
        labels = self._segmenter.labels(self._segmenter.opened(image, "picture"))
        encode = need("cvat_sdk.masks", "cvat").encode_mask
        return [_cvat().mask(int(label), encode(labels == label)) for label in np.unique(labels)]


def _cvat() -> Any:
    return need("cvat_sdk.auto_annotation", "cvat")


def _spec(net: Network, kind: str) -> Any:
    cvat = _cvat()
    labels = [cvat.label_spec(name, number, type=kind) for number, name in enumerate(net.classes)]
    return cvat.DetectionFunctionSpec(labels=labels)
