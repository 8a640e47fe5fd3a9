from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.training import recipe
from verydeep.training.schedule import Schedule


def run(errors: list[float], **settings: object) -> list[float]:
    """Factors in force in each epoch until the schedule ends the run."""
    schedule = Schedule(recipe.Schedule(**settings))  # type: ignore[arg-type]
    factors = []
    for epoch, error in enumerate(errors):
        if schedule.finished(epoch):
            break
        factors.append(schedule.factor(epoch))
        schedule.record(error)
    return factors


def test_plateau_drops_three_times_then_ends() -> None:
    errors = [0.9, 0.8, 0.8, 0.85, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    # Two epochs without a new minimum make a drop: after epochs 4, 7 and 9; after 11 the run ends.
    expected = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert run(errors, patience=2) == pytest.approx(expected)


def test_plateau_ends_at_its_epochs() -> None:
    assert run([1 / (i + 1) for i in range(50)], epochs=12) == [1] * 12


@given(st.lists(st.floats(0, 1), max_size=200), st.integers(1, 6), st.integers(0, 4))
def test_plateau_never_rises_and_never_drops_more_than_asked(errors: list[float], patience: int, drops: int) -> None:
    factors = run(errors, patience=patience, drops=drops, epochs=500)
    assert all(b in (a, pytest.approx(a / 10)) for a, b in pairwise(factors))
    assert not factors or min(factors) >= 0.1**drops * 0.999


def test_cosine_with_warm_up() -> None:
    schedule = Schedule(recipe.Schedule(kind="cosine", epochs=11, warmup_epochs=1))
    found = [schedule.factor(x) for x in (0.0, 0.5, 1.0, 3.5, 6.0, 11.0)]
    assert schedule.factor(0.0, 0.1) == pytest.approx(0.1)  # the first of ten steps is made, if small
    assert schedule.factor(0.95, 0.1) == 1
    assert found == pytest.approx([0, 0.5, 1, (1 + np.cos(np.pi / 4)) / 2, 0.5, 0])


def test_state_goes_on() -> None:
    first = Schedule(recipe.Schedule(patience=2))
    for error in (0.5, 0.6, 0.4, 0.4):
        first.record(error)
    second = Schedule(recipe.Schedule(patience=2))
    second.load_state_dict(first.state_dict())
    for error in (0.4, 0.4, 0.3):
        assert first.record(error) == second.record(error)
        assert first.state_dict() == second.state_dict()
    assert second.drops == 1
