"""A classifier and a localizer side by side over whole pictures: boxes and class scores of every window."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import Picture
from verydeep.localization.boxes import Frame, cells_to_picture, decode
from verydeep.nets.network import Network
from verydeep.nets.vgg import VGG, is_head

REMEDY = "start the localizer from this classifier (--init-from)"


class LocalizationModel:
    """A classifier, whose scores rate boxes, and a localizer, which gives them, on the same grid of windows.

    Where the two have the same convolutions, as after tuning the fully connected layers alone, these run once. `names`
    are what to call the two in a message; UserError where classes, preprocessing or windows do not fit together.
    """

    def __init__(
        self,
        classifier: Network | Forward,
        localizer: Network,
        options: Options,
        runtime: Runtime,
        names: tuple[str, str] = ("the classifier", "the localizer"),
        views: int | None = None,
    ) -> None:
        net = classifier.net if isinstance(classifier, Forward) else classifier
        check_pair(net, localizer, names)
        self.size = net.image_size
        self.classifier = classifier if isinstance(classifier, Forward) else Forward(net, options, runtime, views)
        self.localizer = Forward(localizer, options, runtime, views)
        self.shares_trunk = same_trunk(net, localizer)

    @property
    def least_size(self) -> int:
        """Smallest image side in pixels that the two take whole."""
        return self.classifier.least_size

    def at_once(self, height: int, width: int) -> int:
        """Return how many pictures of this size share a batch."""
        return self.classifier.at_once(height, width)

    def maps(self, pictures: Sequence[Picture]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run both networks over N pictures of one size; return scores (N, h, w, K) and answers (N, h, w, 1 or K, 4).

        Scores are every window's before the soft-max; answers are center x, center y, width and height of its boxes,
        divided by the window's size.
        """
        classifier, localizer = self.classifier, self.localizer
        classifier.count_batch()
        pixels = torch.from_numpy(np.stack(pictures)).to(classifier.device)
        with ExitStack() as stack:
            for forward in (classifier, localizer):
                stack.enter_context(forward.testing())
            x = classifier.net.preprocessing(pixels)
            features = classifier.layers("pool5")(x)
            scores = classifier.layers("fc8", "pool5")(features).float()
            own = features if self.shares_trunk else localizer.layers("pool5")(x)
            answers = localizer.layers("fc8", "pool5")(own).float()
        if not bool(torch.isfinite(scores).all() and torch.isfinite(answers).all()):
            raise UserError("a network gives numbers that are not finite: its training diverged; use other weights")
        score, answer = (output.permute(0, 2, 3, 1).cpu().numpy() for output in (scores, answers))
        return score, answer.reshape(*answer.shape[:3], -1, 4)


def boxes_of_windows(
    answers: NDArray[np.float32], frame: Frame, size: int, classes: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the boxes of G classes that a picture's windows give, row by row, (h * w, G, 4), in its original pixels.

    Answers, (h, w, 1 or K, 4), are from `LocalizationModel.maps`; with one box for all classes that one is repeated.
    `frame` is of the first window, `size` the windows' side.
    """
    chosen = np.zeros(len(classes), np.int64) if answers.shape[2] == 1 else np.asarray(classes)
    boxes = cells_to_picture(decode(answers[:, :, chosen].astype(np.float64), size), frame)
    return boxes.reshape(-1, len(classes), 4)


def check_pair(classifier: Network, localizer: Network, names: tuple[str, str]) -> None:
    """Raise UserError unless one network classifies, the other localizes, and both see the same windows alike."""
    classifier.check_task("classify", names[0])
    if not isinstance(classifier, VGG):
        raise UserError(f"{names[0]}: is {classifier.configuration.name}; boxes are found with the paper's networks")
    localizer.check_task("localize", names[1])
    together = f"{names[0]} and {names[1]}"
    for a, b in zip(classifier.classes, localizer.classes, strict=False):
        if a != b:
            raise UserError(
                f"{together} differ in classes: {a!r} in the one stands where {b!r} does in the other; {REMEDY}"
            )
    if len(classifier.classes) != len(localizer.classes):
        counts = len(classifier.classes), len(localizer.classes)
        raise UserError(f"{together} differ in classes: {counts[0]} in the one, {counts[1]} in the other; {REMEDY}")
    if classifier.window != localizer.window:
        sides = classifier.window, localizer.window
        raise UserError(f"{together} differ in their windows: {sides[0]} and {sides[1]} pixels; {REMEDY}")
    mine, yours = classifier.preprocessing.to_dict(), localizer.preprocessing.to_dict()
    for key, value in mine.items():
        if value != yours[key]:
            raise UserError(
                f"{together} differ in preprocessing: {key} is {_words(value)} in the one, {_words(yours[key])} in the "
                f"other; {REMEDY}"
            )


def same_trunk(a: Network, b: Network) -> bool:
    """Return whether two networks have the same convolutions, bit by bit."""
    mine, yours = (
        {name: tensor for name, tensor in net.state_dict().items() if not is_head(name.partition(".")[0])}
        for net in (a, b)
    )
    if a.configuration != b.configuration or mine.keys() != yours.keys():
        return False
    # How many batches a batch norm has seen in training plays no part in testing.
    return all(torch.equal(t.cpu(), yours[n].cpu()) for n, t in mine.items() if not n.endswith("num_batches_tracked"))


def _words(value: Any) -> str:
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)
