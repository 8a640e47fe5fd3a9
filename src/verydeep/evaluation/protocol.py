"""Moved to `verydeep.inference.protocol`."""

from verydeep.inference.protocol import *  # noqa: F403
