import pytest

from verydeep.scoremaps import plan


@pytest.fixture(autouse=True)
def memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the tests' process: what a training command arranges for its own would stay for good."""
    monkeypatch.setattr("verydeep.cli.main.keep_memory", lambda: None)


@pytest.fixture
def a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command begin with what a new process holds, not with what hundreds of tests before it have left."""
    monkeypatch.setattr(plan, "resident", lambda: 400 << 20)
