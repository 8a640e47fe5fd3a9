"""Pages for people: files that are shipped with the package, under a policy that lets nothing else in."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

from verydeep.serving.refusal import RefusedError

POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='; "  # the one that OpenSeadragon adds
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
FOLDER = Path(__file__).parent / "page"


def add_page(app: FastAPI, index: str) -> None:
    """Add a page at `/`, one of the folder's files, and what it loads under `/page`."""
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in FOLDER.iterdir() if path.suffix in _TYPES}

    def sent(name: str) -> Callable[[], Coroutine[Any, Any, Response]]:
        async def answer() -> Response:
            content, kind = files[name]
            return Response(content, media_type=kind, headers=HEADERS)

        return answer

    app.get("/", include_in_schema=False)(sent(index))

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in files:
            raise RefusedError(404, "no such file of the page")
        return await sent(name)()
