"""Moved to `verydeep.inference.loading`."""

from verydeep.inference.loading import *  # noqa: F403
