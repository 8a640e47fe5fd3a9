"""The classifier of a transfer as a network: the layers that describe, and the classifier as their fc8."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verydeep.basics.version import VERSION
from verydeep.inference.protocol import default_protocol
from verydeep.nets.config import DescriptorConfig
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import save
from verydeep.transfer.elementary import PAPERS_LAYER, LayerDescriptor
from verydeep.transfer.linear import Linear
from verydeep.transfer.work import Outcome, Transfer


def no_network(work: Transfer) -> str | None:
    """Return why no network's file comes of a transfer; None where one does."""
    if work.descriptor is None or work.settings.baseline:
        return f"baseline {work.settings.baseline} is there to compare with"
    if work.data.boxes is not None:
        return "a classifier of whole pictures and persons' boxes takes two descriptors, and a network one picture"
    if "fc8" in work.descriptor.layers():
        return "a classifier on fc8, the scores of other classes, has no place in a network; take another --layer"
    return None


def deploy(work: Transfer, out: Path, measured: Outcome) -> list[dict[str, Any]]:
    """Write the classifier of the first split as a network; return the file's name, what it is and its metric.

    Of several networks each gets one, with the classifier on its own descriptor alone.

    Parameters
    ----------
    work : Transfer
        What was done.
    out : Path
        Folder for the files.
    measured : Outcome
        The first split's.
    """
    descriptor, made = work.descriptor, []
    if descriptor is None or no_network(work):
        return []
    parts = descriptor.parts()
    for number, scales in enumerate(parts, start=1):
        outcome, source = measured, scales[0].source
        if len(parts) > 1:
            rows = [work.store.read(part, work.data.hashes) for part in scales]
            outcome = work.classify(descriptor.combine([rows]), measured.split)
        net = _as_network(scales, outcome.chosen.linear, _config(work, scales), work.data.classes)
        net.provenance = _provenance(work, scales[0], outcome)
        path = out / ("classifier.safetensors" if len(parts) == 1 else f"classifier-{number}.safetensors")
        save(net, path)
        made.append(
            {
                "file": path.name,
                "system": work.system([source], [scales[0].layer]),
                "split": outcome.split.name,
                "protocol": str(default_protocol(net)),
                "C": outcome.chosen.C,
                "merit": outcome.metrics["merit"],
            }
        )
    return made


def _config(work: Transfer, scales: list[LayerDescriptor]) -> DescriptorConfig:
    known = [work.data.hashes[i] for i in work.splits[0].known.tolist()]
    norms = [np.linalg.norm(work.store.read(part, known), axis=1).mean(dtype=np.float64) for part in scales]
    choice, aggregate = work.settings, work.settings.aggregate or work.protocol.aggregate
    norm = float(np.mean(norms)) or 1.0
    return DescriptorConfig(tuple(part.scale for part in scales), aggregate, choice.flip, choice.normalize, norm)


def _as_network(
    scales: list[LayerDescriptor], linear: Linear, config: DescriptorConfig, classes: tuple[str, ...]
) -> VGG:
    """Return the network up to the layer, whose weights are shared, with the classifier behind it."""
    net, layer = scales[0].source.net, scales[0].layer
    trunk = None if layer == PAPERS_LAYER else layer
    with torch.device("meta"):
        new = VGG(replace(net.config, classes=classes, trunk=trunk, descriptor=config, regression=None))
    state = {name: tensor.cpu() for name, tensor in net.state_dict().items() if name in new.state_dict()}
    state["fc8.weight"] = torch.from_numpy(linear.weights.astype(np.float32))[:, :, None, None]
    state["fc8.bias"] = torch.from_numpy(linear.biases.astype(np.float32))
    new.load_state_dict(state, assign=True)
    return new.eval()


def _provenance(work: Transfer, part: LayerDescriptor, outcome: Outcome) -> dict[str, Any]:
    of_source = part.source.net.provenance
    train_scales = of_source.get("train_scales")
    return {
        **({"train_scales": train_scales} if train_scales else {}),  # of the layers, for who trains them further
        "recipe": "transfer",
        "data": work.data.dataset.name,
        "training_images": len(outcome.split.known),
        "split": outcome.split.name,
        "multi_label": work.protocol.multi_label,
        "transfer": {
            "protocol": work.protocol.name,
            "classifier": work.settings.classifier,
            "C": outcome.chosen.C,
            "created_by": f"verydeep {VERSION}",
        },
        "features": {"weights_hash": part.source.hash, "provenance": of_source},
    }
