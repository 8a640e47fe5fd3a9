"""Moved to `verydeep.inference.runtime`."""

from verydeep.inference.runtime import *  # noqa: F403
