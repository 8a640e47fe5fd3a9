"""Which engine a run's steps go by: one for a run, as another's sums are rounded otherwise."""

import torch

from verydeep.basics.errors import UserError
from verydeep.inference.runtime import Engine, pick_engine
from verydeep.nets.layers import Auxiliary
from verydeep.nets.network import Network
from verydeep.training.recipe import Recipe


def pick_training_engine(recipe: Recipe, net: Network, device: torch.device, compiled: bool = False) -> Engine:
    """Return the engine that a recipe's steps go by; `auto` is the native one where `pick_engine` says so, else torch.

    UserError where the recipe asks for one that does not run here.
    """
    beside = any(isinstance(module, Auxiliary) for module in net.children())
    if recipe.engine == "auto" and (compiled or beside):
        return "torch"
    engine = pick_engine(recipe.engine, device, recipe.precision, net=net)
    if engine == "native" and (compiled or beside):
        what = "--compile" if compiled else f"{net.configuration.name}'s auxiliary classifiers"
        raise UserError(f"engine native does not go with {what}: set engine=torch")
    return engine
