"""Fine-tuning: a network's layers taken over for other classes, some of them frozen or trained more slowly."""

from collections.abc import Sequence
from pathlib import Path

from verydeep.nets.weights import load
from verydeep.training.run_folder import find_weights

SHAPE = ("width", "batch_norm", "image_size", "fc_width", "dropout", "lrn_alpha")
"""What a network whose layers are taken over decides: the recipe's section `network`."""


def fine_tuning(init_from: str | Path, reset: Sequence[str], freeze: Sequence[str]) -> tuple[str, list[str]]:
    """Return the configuration of the network to start from, and what it and the choices change in a recipe.

    Parameters
    ----------
    init_from : str or Path
        Run or weights file.
    reset : sequence of str
        Layers that begin anew, such as `fc8`. The shape of all others, and the scales that the network was trained
        at, are then the source's.
    freeze : sequence of str
        Beginnings of the names of layers that are not trained, such as `conv`, `conv1`, `fc6`.

    Returns
    -------
    str
        The configuration, for example `B`.
    list of str
        For `load_recipe`, in front of the user's own.

    Raises
    ------
    UserError
        No such weights.
    """
    net = load(find_weights(init_from))
    changes = [f"optimizer.layer_learning_rates.{prefix}=0" for prefix in freeze]
    if reset:
        changes += [f"network.{key}={str(getattr(net.config, key)).lower()}" for key in SHAPE]
        changes += [f"images.pool_round_up={str(net.preprocessing.pool_round_up).lower()}"]
        changes += [f"images.interpolation={net.preprocessing.interpolation}"]
        changes += [f"images.divide_by_std={str(net.preprocessing.std != (1.0, 1.0, 1.0)).lower()}"]
        changes += [f"initialization.reset={list(reset)}"]
        if scales := net.provenance.get("train_scales"):
            changes += [f"images.scales={list(scales)}"]
    return net.configuration.name, changes
