"""Packages that only some users need: imported where they are used, missed in one line."""

from importlib import import_module
from typing import Any

from verydeep.basics.errors import UserError


def need(module: str, extra: str) -> Any:
    """Import a package that one of verydeep's extras installs.

    Parameters
    ----------
    module : str
        Its import name, perhaps with a submodule: `onnxruntime.quantization`.
    extra : str
        The extra that brings it.

    Raises
    ------
    UserError
        It is not installed; the message says how to install it.

    Examples
    --------
    >>> need("json", "none").dumps([1])
    '[1]'
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f"this needs {package}, which cannot be imported ({error}); install it: pip install 'verydeep[{extra}]'"
        ) from None
