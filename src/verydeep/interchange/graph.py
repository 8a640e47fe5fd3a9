"""What a file computes, layer by layer: a VGG's plain sequence, or a refusal that names the layer which is none.

Readers translate what their format calls layers into one list of `Step`; `check_vgg` alone knows what a VGG is. So
no file is taken for one because its arrays have the right shapes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from verydeep.basics.errors import UserError

FULLY_CONNECTED = ("fc6", "fc7", "fc8")

Kind = Literal["conv", "dense", "norm", "relu", "pool", "lrn", "softmax", "sigmoid", "mean", "nothing", "other"]
"""`mean` averages a map over its places; `nothing` changes no value in testing; `other` is no layer of a VGG's."""


@dataclass(frozen=True)
class Step:
    """One layer of a file.

    Attributes
    ----------
    kind : Kind
        What it does.
    name : str
        What the file calls it.
    words : str
        Of another layer, what it is, for people.
    """

    kind: Kind
    name: str
    words: str = ""


def check_vgg(steps: Iterable[Step], where: str) -> bool:
    """Return whether scores become posteriors by a sigmoid a class, of a file that computes what a VGG does.

    Convolutions and fully connected layers, each with a ReLU behind it but the last; batch norm between the two; pools
    (which commute with the ReLU), A-LRN's normalization; at the end a mean over places, and a soft-max or sigmoids.

    Parameters
    ----------
    steps : iterable of Step
        In the order in which they run.
    where : str
        The file, for messages.

    Raises
    ------
    UserError
        A layer that a VGG has not, or one at a place where it has none.
    """
    weighted: Step | None = None  # the last layer with weights, as long as no ReLU was behind it
    normed = pooled = False
    connected = 0
    end: Step | None = None
    for step in steps:
        if step.kind == "nothing":
            continue
        if step.kind == "other":
            raise _refused(where, step, f"is {step.words}")
        if end is not None and (step.kind, end.kind) not in (("softmax", "mean"), ("sigmoid", "mean")):
            raise _refused(where, step, f"stands behind {end.name}, which should be the end")
        if step.kind in ("conv", "dense"):
            if weighted is not None:
                raise _refused(where, weighted, f"has no ReLU behind it, before {step.name}")
            weighted, normed, pooled = step, False, False
            connected += step.kind == "dense"
            if connected > len(FULLY_CONNECTED):
                raise _refused(where, step, f"is fully connected layer number {connected}, a VGG has 3")
        elif step.kind == "norm":
            if weighted is None or normed or pooled:
                raise _refused(where, step, "is batch norm, and stands behind no convolution but another layer")
            normed = True
        elif step.kind == "relu":
            weighted = None
        elif step.kind == "pool":
            pooled = True
        elif step.kind == "lrn":
            if weighted is not None:
                raise _refused(where, step, "normalizes before the ReLU")
        else:
            if weighted is None:
                raise _refused(where, step, f"is {_ENDS[step.kind]}, and stands before the scores")
            end = step
    return end is not None and end.kind == "sigmoid"


_ENDS = {"softmax": "a soft-max", "sigmoid": "a sigmoid", "mean": "a mean over the whole map"}


def _refused(where: str, step: Step, why: str) -> UserError:
    return UserError(
        f"{where}: {step.name}: {why}: none of the paper's networks has that, so scores would be others here; "
        "run the file with its own software"
    )
