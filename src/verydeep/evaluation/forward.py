"""Moved to `verydeep.inference.forward`."""

from verydeep.inference.forward import *  # noqa: F403
