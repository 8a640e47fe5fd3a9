"""What protocols mean, in words for people who choose one."""

from collections.abc import Mapping
from typing import Any

from verydeep.inference.protocol import Protocol
from verydeep.serving.models import Model


def about_protocols(model: Model, measured: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the protocols that may be chosen: what each looks at, and the seconds that it takes, where known."""
    return [
        {
            "protocol": name,
            "name": _name(task.predictor.protocol),
            "looks_at": _words(task.predictor.protocol),
            "seconds": measured.get(name),
            "usual": task is model.classify,
        }
        for name, task in model.choices.items()
    ]


def _name(protocol: Protocol) -> str:
    if len(protocol.scales) == 1:
        return protocol.kind
    number = {2: "two", 3: "three", 4: "four"}.get(len(protocol.scales), str(len(protocol.scales)))
    return f"{protocol.kind} at {number} scales"


def _words(protocol: Protocol) -> str:
    words = {
        "center": "one square in the middle; what lies beside it is not seen",
        "dense": "the whole picture and its mirror image, every window of it",
        "crops": "25 squares and their mirror images",
        "dense+crops": "the whole picture, and 25 squares, with their mirror images",
        "descriptor": "the whole picture and its mirror image, all scales as one description",
        "ten-crops": "four corners and the middle, and their mirror images",
        "square-crops": "squares at many places and their mirror images",
    }[protocol.kind]
    return words if len(protocol.scales) == 1 else f"{words}, small and large: things of more sizes are found"
