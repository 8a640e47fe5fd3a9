"""A network as the file of another project."""

from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.checkpoints import caffe, keras_files, torch_files
from verydeep.nets.vgg import VGG

TARGETS = ("torchvision", "timm", "keras", "caffe")


def write(net: VGG, path: str | Path, target: str) -> None:
    """Write a network's weights as another project's own loader takes them.

    Reading the file again gives the same network, bit for bit, with its classes and preprocessing: they stand in
    the file where its own project does not look. That project will not do our preprocessing by itself; whoever uses
    the file there must.

    Parameters
    ----------
    net : VGG
        The network.
    path : str or Path
        torchvision, timm: `.pth` or `.safetensors`; Keras: `.weights.h5` or `.h5`; Caffe: `.caffemodel`, with a
        `.prototxt` beside it.
    target : {"torchvision", "timm", "keras", "caffe"}
        Whose file.

    Raises
    ------
    UserError
        The target has no such network (one that `verydeep transfer` made, say), or the file's ending is another one.
    """
    net.check_task("classify")
    path = Path(path)
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
