"""Moved to `verydeep.inference.options`."""

from verydeep.inference.options import *  # noqa: F403
