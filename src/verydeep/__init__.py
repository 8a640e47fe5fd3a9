"""The whole VGG system: very deep ConvNets trained and tested as in the paper (Simonyan & Zisserman 2014)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from verydeep.basics.version import VERSION as __version__

if TYPE_CHECKING:
    from verydeep.checkpoints.reading import load as load
    from verydeep.datasets.opening import open_dataset as open_dataset
    from verydeep.engines.compiled import compile_cpu as compile_cpu
    from verydeep.evaluation.evaluate import evaluate as evaluate
    from verydeep.evaluation.fuse import fuse as fuse
    from verydeep.evaluation.posteriors import Posteriors as Posteriors
    from verydeep.evaluation.predict import predict as predict
    from verydeep.exports.export import export as export
    from verydeep.inference.protocol import Protocol as Protocol
    from verydeep.localization.localize import localize as localize
    from verydeep.nets.families import create as create
    from verydeep.nets.preprocessing import Preprocessing as Preprocessing
    from verydeep.nets.vgg import VGG as VGG
    from verydeep.nets.weights import save as save
    from verydeep.perceptual.dists import DISTS as DISTS
    from verydeep.perceptual.features import features as features
    from verydeep.perceptual.in_bands import distance_in_bands as distance_in_bands
    from verydeep.perceptual.losses import ContentLoss as ContentLoss
    from verydeep.perceptual.losses import PerceptualLoss as PerceptualLoss
    from verydeep.perceptual.losses import StyleLoss as StyleLoss
    from verydeep.perceptual.lpips import LPIPS as LPIPS
    from verydeep.perceptual.stylize import stylize as stylize
    from verydeep.perceptual.torchmetric import as_torchmetric as as_torchmetric
    from verydeep.perceptual.trunk import trunk as trunk
    from verydeep.scoremaps.densify import densify as densify
    from verydeep.scoremaps.score_map import read_map as read_map
    from verydeep.scoremaps.score_map import score_map as score_map
    from verydeep.segmentation.segment import segment as segment
    from verydeep.training.recipe import load_recipe as load_recipe
    from verydeep.training.train import train as train
    from verydeep.transfer.descriptor import Descriptor as Descriptor

# Where each public name stands; imported on first use, so that `import verydeep` stays quick.
_PUBLIC = {
    "open_dataset": "verydeep.datasets.opening",
    "evaluate": "verydeep.evaluation.evaluate",
    "fuse": "verydeep.evaluation.fuse",
    "Posteriors": "verydeep.evaluation.posteriors",
    "predict": "verydeep.evaluation.predict",
    "Protocol": "verydeep.inference.protocol",
    "export": "verydeep.exports.export",
    "compile_cpu": "verydeep.engines.compiled",
    "localize": "verydeep.localization.localize",
    "create": "verydeep.nets.families",
    "VGG": "verydeep.nets.vgg",
    "Preprocessing": "verydeep.nets.preprocessing",
    "load": "verydeep.checkpoints.reading",
    "save": "verydeep.nets.weights",
    "densify": "verydeep.scoremaps.densify",
    "read_map": "verydeep.scoremaps.score_map",
    "score_map": "verydeep.scoremaps.score_map",
    "segment": "verydeep.segmentation.segment",
    "load_recipe": "verydeep.training.recipe",
    "train": "verydeep.training.train",
    "Descriptor": "verydeep.transfer.descriptor",
    "features": "verydeep.perceptual.features",
    "trunk": "verydeep.perceptual.trunk",
    "LPIPS": "verydeep.perceptual.lpips",
    "DISTS": "verydeep.perceptual.dists",
    "ContentLoss": "verydeep.perceptual.losses",
    "StyleLoss": "verydeep.perceptual.losses",
    "PerceptualLoss": "verydeep.perceptual.losses",
    "distance_in_bands": "verydeep.perceptual.in_bands",
    "stylize": "verydeep.perceptual.stylize",
    "as_torchmetric": "verydeep.perceptual.torchmetric",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'verydeep' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
