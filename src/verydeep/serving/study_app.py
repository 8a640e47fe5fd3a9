"""The paths of a study's page."""

from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Response
from starlette.concurrency import run_in_threadpool

from verydeep.basics.version import VERSION
from verydeep.serving.app import say_errors_in_one_line
from verydeep.serving.pages import add_page
from verydeep.serving.study import Outcome, StudyView


def make_study_app(view: StudyView) -> FastAPI:
    """Return the application; a `Guard` must stand before it."""
    app = FastAPI(title="verydeep report", version=VERSION, docs_url=None, redoc_url=None)
    say_errors_in_one_line(app)
    add_page(app, "study.html")

    @app.get("/study")
    async def study() -> dict[str, Any]:
        return await run_in_threadpool(view.about)

    @app.get("/study/stamp")
    async def stamp() -> dict[str, str]:
        return {"stamp": (await run_in_threadpool(view.look)).stamp}

    @app.get("/study/compare")
    async def compare(
        first: str,
        second: str,
        outcome: Outcome = "any",
        start: Annotated[int, Query(ge=0)] = 0,
        count: Annotated[int, Query(ge=1, le=100)] = 24,
    ) -> dict[str, Any]:
        return await run_in_threadpool(partial(view.compare, first, second, outcome, start, count))

    @app.get("/study/picture", response_class=Response)
    async def picture(name: str) -> Response:
        return Response(await run_in_threadpool(partial(view.picture, name)), media_type="image/jpeg")

    return app
