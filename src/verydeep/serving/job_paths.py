"""The paths of jobs: a large picture's score map, asked for, watched, looked at, cancelled."""

import re
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import Field

from verydeep.scoremaps.score_map import Wanted
from verydeep.serving.guard import Exchange
from verydeep.serving.jobs import Job
from verydeep.serving.large import draw_map
from verydeep.serving.refusal import RefusedError
from verydeep.serving.service import Service
from verydeep.serving.uploads import picture_of

Id = Annotated[str, Path(description="As the answer to POST named it.")]
Scale = Annotated[float, Field(gt=0.01, le=4)]
_TYPES = {".csv": "text/csv", ".geojson": "application/geo+json", ".dzi": "application/xml", ".jpg": "image/jpeg"}
_TILE = re.compile(r"image_files/\d{1,2}/\d{1,5}_\d{1,5}\.jpg", re.ASCII)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_jobs(app: FastAPI, service: Service) -> None:
    """Add the paths of jobs to the application."""

    @app.post(
        "/models/{name}/scoremap",
        summary="Compute a large picture's score map, as a job: the answer says where to look",
        openapi_extra=_BODY,
        status_code=202,
    )
    async def score_map(
        request: Request,
        name: Annotated[str, Path(description="One of /models.")],
        scale: Annotated[list[Scale], Query(max_length=4, description="Factors on the picture's sides.")] = [1.0],  # noqa: B006
        label: Annotated[list[str] | None, Query(alias="class", description="Which to keep; all by default.")] = None,
        threshold: Annotated[float, Query(ge=0, le=1, description="Least posterior of a peak.")] = 0.5,
    ) -> JSONResponse:
        model = service.models[name]
        kind, body = request.headers.get("content-type", ""), await request.body()
        upload = await service.in_thread(partial(picture_of, kind, body))
        job = await service.large(name, model, upload, Wanted(scale, label or None), threshold)
        return JSONResponse(job.about(), 202, {"location": f"/jobs/{job.id}"})

    @app.get("/jobs/{id}", summary="How far a job is, and what came of it")
    async def about(id: Id) -> dict[str, Any]:
        return service.jobs[id].about()

    @app.delete("/jobs/{id}", summary="Cancel a job, or delete what came of it", status_code=204)
    async def delete(id: Id) -> Response:
        await service.in_thread(partial(service.jobs.delete, id))
        return Response(status_code=204)

    @app.get(
        "/jobs/{id}/map",
        summary="A class's map as a picture, one pixel a cell",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def drawn(
        request: Request,
        id: Id,
        label: Annotated[str, Query(alias="class")],
        level: Annotated[int, Query(ge=0, description="Place of the scale among those asked for.")] = 0,
    ) -> Response:
        found = _done(service.jobs[id]).found
        if level >= len(found.levels) or label not in found.classes:
            raise RefusedError(404, "no such class or scale in this map")
        exchange: Exchange = request.scope["exchange"]
        _, rows, columns = found.levels[level].values.shape
        exchange.hold(24 * rows * columns)
        png = await service.in_thread(partial(draw_map, found, level, found.classes.index(label)))
        return Response(png, media_type="image/png")

    @app.get(
        "/jobs/{id}/{file:path}", summary="One of the files that the result names, or a tile", response_class=Response
    )
    async def files(id: Id, file: str) -> FileResponse:
        job = service.jobs[id]
        _done(job)
        if file not in job.result["files"] and not _TILE.fullmatch(file):
            raise RefusedError(404, "no such file in this job")
        path = job.folder / file
        if not path.is_file():
            raise RefusedError(404, "no such file in this job")
        return FileResponse(path, media_type=_TYPES.get(path.suffix, "application/octet-stream"))


def _done(job: Job) -> Any:
    if job.state != "done":
        raise RefusedError(404, f"this job is {job.state}: nothing has come of it yet")
    return job.product
