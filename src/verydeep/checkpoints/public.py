"""Well-known public weights by name: where they are published, and how a download is checked."""

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import cache_folder, file_hash
from verydeep.checkpoints.download import download


@dataclass(frozen=True)
class Published:
    """A file of public weights.

    Attributes
    ----------
    url : str
        Where it is.
    digest : str
        Hash that its publisher names: `sha256:` (torchvision's file names end in its first eight digits), `md5:` or
        `sha1:`.
    about : dict
        What is known of its training; it becomes part of the provenance.
    """

    url: str
    digest: str
    about: dict[str, Any] = field(default_factory=dict)


_JITTER = {"train_scales": [256, 512]}
"""The authors released D and E trained with scale jitter; Keras's are the same weights."""

_TORCHVISION = {
    "vgg11": "8a719046",
    "vgg13": "19584684",
    "vgg16": "397923af",
    "vgg19": "dcbb9e9d",
    "vgg11_bn": "6002323d",
    "vgg13_bn": "abd245e5",
    "vgg16_bn": "6c64b313",
    "vgg19_bn": "c79401a0",
}
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe"

PUBLISHED = (
    {
        f"torchvision:{name}": Published(f"https://download.pytorch.org/models/{name}-{digest}.pth", f"sha256:{digest}")
        for name, digest in _TORCHVISION.items()
    }
    | {
        f"keras:vgg{depth}{end}": Published(
            f"{_KERAS}/vgg{depth}/vgg{depth}_weights_tf_dim_ordering_tf_kernels{end.replace('-', '_')}.h5",
            f"md5:{digest}",
            _JITTER,
        )
        for depth, end, digest in (
            (16, "", "64373286793e3c8b2b4e3219cbf3544b"),
            (16, "-notop", "6d6bbae143d832006294945121d1f1fc"),
            (19, "", "cbe5617147190e668d6c5d5026f83318"),
            (19, "-notop", "253f8cb515780f3b799900260a226db6"),
        )
    }
    | {
        f"caffe:vgg{depth}": Published(f"{_OXFORD}/VGG_ILSVRC_{depth}_layers.caffemodel", f"sha1:{digest}", _JITTER)
        for depth, digest in (
            (16, "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24"),
            (19, "239785e7862442717d831f682bb824055e51e9ba"),
        )
    }
)
"""By name, as `verydeep convert` and `vd.load` take it. timm's are on the Hugging Face hub and not in this table."""

TIMM = tuple(f"timm:{name}.tv_in1k" for name in _TORCHVISION)


def is_name(source: str) -> bool:
    """Say whether a source is the name of public weights, not a path."""
    return re.match(r"(torchvision|timm|keras|caffe):", source) is not None


def fetch(name: str, *, offline: bool = False) -> tuple[Path, dict[str, Any]]:
    """Return the file of public weights, such as `torchvision:vgg16`, downloaded if need be, and what is known of it.

    UserError where there are no such weights, or they cannot be had, `offline` from the cache alone.
    """
    if name.startswith("timm:") and "." not in name:
        name += ".tv_in1k"
    if name in TIMM:
        return _from_hub(name.removeprefix("timm:"), offline), {"published_as": name}
    if name not in PUBLISHED:
        known = [*PUBLISHED, *TIMM]
        near = get_close_matches(name, known, n=1)
        raise UserError(
            f"{name}: no such public weights{f' (did you mean {near[0]}?)' if near else ''}; "
            f"known are {', '.join(known)}"
        )
    published = PUBLISHED[name]
    path = download(published.url, published.digest, cache_folder(), offline=offline)
    return path, {"published_as": name, "url": published.url, **published.about}


def _from_hub(model: str, offline: bool) -> Path:
    """Return a model's file from the hub's own cache, which its client fills, continues and shares."""
    hub = need("huggingface_hub", "hub")
    errors = need("huggingface_hub.errors", "hub")
    repository = f"timm/{model}"
    try:
        path = Path(hub.hf_hub_download(repository, "model.safetensors", local_files_only=offline))
    except errors.LocalEntryNotFoundError:
        what = (
            "--offline forbids to download it" if offline else "the hub cannot be reached: check the network and proxy"
        )
        raise UserError(f"timm:{model} is not in the hub's cache, and {what}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"timm:{model} cannot be downloaded from the hub ({type(error).__name__}: {error})") from None
    # The cache names a large file by its SHA-256.
    expected = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", expected) and file_hash(path) != expected:
        raise UserError(f"{path}: is not the published file (its SHA-256 differs): remove it and try again")
    return path
