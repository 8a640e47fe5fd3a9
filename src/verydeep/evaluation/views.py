"""Moved to `verydeep.inference.views`."""

from verydeep.inference.views import *  # noqa: F403
