"""How the learning rate falls, and when training ends."""

import math
from typing import Any

from verydeep.training import recipe


class Schedule:
    """The learning rate's course over a run.

    `plateau`, the paper's rule: divide when the validation error has had no new minimum for `patience` epochs; after
    the last drop the same condition ends the run. `cosine`: one fall to 0 over `epochs`. `steps`: multiplied
    by `factor` after each of `milestones`, in epochs.
    """

    def __init__(self, settings: recipe.Schedule) -> None:
        self.settings = settings
        self.drops = 0
        self.best_error = math.inf
        self.best_loss = math.inf
        self.stale_epochs = 0
        self.exhausted = False

    def factor(self, progress: float, step: float = 0.0) -> float:
        """Return the factor on the initial learning rate after `progress` epochs (a fraction counts).

        The step to be made, `step` of an epoch, counts in the warm-up, so that the first one is not made for nothing.

        Examples
        --------
        >>> cosine = Schedule(recipe.Schedule(kind="cosine", epochs=10, warmup_epochs=2))
        >>> cosine.factor(1.0), cosine.factor(6.0), cosine.factor(10.0)
        (0.5, 0.5, 0.0)
        """
        s = self.settings
        if progress < s.warmup_epochs:
            return min(1.0, (progress + step) / s.warmup_epochs)
        if s.kind == "plateau":
            return float(s.factor**self.drops)
        if s.kind == "steps":
            return float(s.factor ** sum(progress >= epoch for epoch in s.milestones))
        fallen = (progress - s.warmup_epochs) / max(s.epochs - s.warmup_epochs, 1e-9)
        return (1 + math.cos(math.pi * min(fallen, 1.0))) / 2

    def record(self, error: float, loss: float = math.inf) -> bool:
        """Take an epoch's validation error and loss; return whether it is the best epoch so far.

        Of equal errors the least loss is best: of few images several epochs often have the same error. Only a new
        least error, though, is an improvement that keeps the learning rate.
        """
        improved = error < self.best_error
        best = (error, loss) < (self.best_error, self.best_loss)
        if best:
            self.best_error, self.best_loss = error, loss
        self.stale_epochs = 0 if improved else self.stale_epochs + 1
        if self.settings.kind == "plateau" and self.stale_epochs >= self.settings.patience:
            self.stale_epochs = 0
            self.exhausted = self.drops == self.settings.drops
            self.drops = min(self.drops + 1, self.settings.drops)
        return best

    def finished(self, epochs: int) -> bool:
        """Return whether training ends after this many epochs."""
        return self.exhausted or epochs >= self.settings.epochs

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {key: value for key, value in vars(self).items() if key != "settings"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's state."""
        vars(self).update(state)
