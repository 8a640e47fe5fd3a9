"""Moved to `verydeep.inference.combine`."""

from verydeep.inference.combine import *  # noqa: F403
