"""Moved to `verydeep.inference.memory`."""

from verydeep.inference.memory import *  # noqa: F403
