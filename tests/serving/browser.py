"""Debian's chromium, driven by Playwright; one for all tests of a file."""

import shutil
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")  # while one runs, asyncio.run of other files' tests would find a loop running
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make test installs it)")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Watched:
    """A page of a browser, and what went wrong in it."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self._origin = url
        self.page.goto(url)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.faults.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self._origin, "blob:", "data:")):
            self.foreign.append(request.url)

    def close(self) -> None:
        self.context.close()
        assert not self.faults, self.faults
        assert not self.foreign, self.foreign


def check_accessible(page: Any) -> None:
    """Run axe-core (Deque) over a page as it stands, by the rules of WCAG 2.1 AA and its own best practices."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    said = [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]
    assert not said, "\n".join(said)


def until(page: Any, expression: str) -> None:
    """Wait until something is so; the policy of the page leaves Playwright's own way of that no eval."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.02)
