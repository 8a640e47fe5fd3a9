"""Packages that only some users need: imported where they are used, missed in one line."""

from importlib import import_module
from typing import Any

from verydeep.basics.errors import UserError


def need(module: str, extra: str) -> Any:
    """Import a package, or a submodule of it, that an extra installs; UserError says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f"this needs {package}, which cannot be imported ({error}); install it: pip install 'verydeep[{extra}]'"
        ) from None
