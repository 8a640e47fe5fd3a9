"""A network as the file of another project."""

from dataclasses import replace
from pathlib import Path

import torch

from verydeep.basics.errors import UserError
from verydeep.checkpoints import caffe, keras_files, torch_files
from verydeep.nets.families import make_on_meta
from verydeep.nets.network import Network
from verydeep.nets.plain import Conv
from verydeep.nets.vgg import VGG

TARGETS = ("torchvision", "timm", "keras", "caffe")


def write(net: Network, path: str | Path, target: str) -> None:
    """Write a network's weights as another project's own loader takes them.

    torchvision, timm: `.pth` or `.safetensors`; Keras: `.weights.h5` or `.h5`; Caffe: `.caffemodel`, with a `.prototxt`
    beside it. Reading the file again gives the same network, bit for bit, with its classes and preprocessing: they
    stand in the file where its own project does not look. That project will not do our preprocessing by itself; whoever
    uses the file there must. UserError where the target has no such network (one that `verydeep transfer` made, say),
    or the file's ending is another one.
    """
    net.check_task("classify")
    path = Path(path)
    if not isinstance(net, VGG):
        raise UserError(f"{path}: convert --to writes the paper's networks, no {net.configuration.name}; try export")
    if net.config.trunk or net.config.descriptor:
        raise UserError(
            f"{path}: {target} has no network whose fc8 is a classifier on descriptors of {net.config.described}; "
            "verydeep export writes it for ONNX Runtime, OpenVINO and torch"
        )
    if target in ("torchvision", "timm"):
        torch_files.write(net, path, target)
    elif target == "keras":
        keras_files.write(net, path)
    elif target == "caffe":
        caffe.write(net, path)
    else:
        raise UserError(f"no format {target!r} to write; expected one of {', '.join(TARGETS)}")


@torch.no_grad()
def fold_batch_norm(net: Network) -> Network:
    """Return the network, in evaluation mode, with its batch norm moved into weights and biases of the convolutions.

    Its outputs are those of `net` in evaluation mode. UserError where there is no batch norm.
    """
    if not net.batch_norm:
        raise UserError("there is no batch norm to fold: leave --fold-batch-norm out")
    convolutions = [layer for layer in net.plain_layers() if isinstance(layer, Conv)]
    state = {
        f"{layer.name}.{kind}": tensor
        for layer in convolutions
        for kind, tensor in zip(("weight", "bias"), layer.folded(), strict=True)
    }
    more = {**net.provenance.more, "batch_norm": "folded into the convolutions"}
    folded = make_on_meta(replace(net.config, batch_norm=False))
    folded.provenance = replace(net.provenance, more=more)
    folded.load_state_dict(state, assign=True)
    return folded.eval()
