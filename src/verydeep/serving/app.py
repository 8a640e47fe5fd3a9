"""The service's paths."""

import base64
import html
import io
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import Field
from starlette.exceptions import HTTPException as AnyHTTPException

from verydeep.basics.errors import UserError
from verydeep.basics.version import VERSION
from verydeep.perceptual.pictures import MetricName
from verydeep.segmentation.drawing import palette
from verydeep.segmentation.segment import Segmented
from verydeep.serving import open_inference
from verydeep.serving.guard import Exchange, Guard
from verydeep.serving.job_paths import add_jobs
from verydeep.serving.models import Model
from verydeep.serving.pages import add_page
from verydeep.serving.protocols import about_protocols
from verydeep.serving.refusal import RefusedError
from verydeep.serving.service import Service
from verydeep.serving.tasks import Heat
from verydeep.serving.uploads import files_of, picture_of

NO_CLASSES = "this network names no classes: it gives descriptors alone"
Name = Annotated[str, Path(description="One of /models.")]
Top = Annotated[int, Query(ge=1, description="Classes to name.")]
Protocol = Annotated[str | None, Query(description="One of /models/NAME/protocols.")]
Side = Annotated[int, Field(ge=1, le=100_000)]
_FILE = {"type": "string", "format": "binary"}
_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {"schema": {"type": "object", "properties": {"image": _FILE}}},
        },
    }
}
_PAIR = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"picture": _FILE, "reference": _FILE},
                    "required": ["picture"],
                }
            }
        },
    }
}
_TENSORS = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


def make_app(service: Service) -> FastAPI:
    """Return the application; a `Guard` must stand before it."""
    app = FastAPI(title="verydeep", version=VERSION, docs_url=None, redoc_url=None)
    say_errors_in_one_line(app)
    _add_own(app, service)
    add_jobs(app, service)
    _add_open_inference(app, service)
    _add_about(app, service)
    add_page(app, "index.html")
    return app


def _add_own(app: FastAPI, service: Service) -> None:
    @app.get("/models", summary="The networks served, and what each can be asked")
    async def models() -> list[dict[str, Any]]:
        return [_about(name, service.models[name]) for name in service.models.names]

    @app.post("/models/{name}/classify", summary="Name what is in a picture", openapi_extra=_PICTURE)
    async def classify(request: Request, name: Name, top: Top = 5, protocol: Protocol = None) -> dict[str, Any]:
        model = service.models[name]
        task = _needed(model.classify_by(protocol), NO_CLASSES)
        (prediction,) = await service.run(task, [await _picture(request, service)], request.scope["exchange"])
        named = [{"class": label, "posterior": value} for label, value in prediction.top[:top]]
        return {**_by(name, model), "protocol": str(prediction.protocol), "top": named}

    @app.post("/models/{name}/localize", summary="Say what is where in a picture", openapi_extra=_PICTURE)
    async def localize(request: Request, name: Name, top: Top = 5) -> dict[str, Any]:
        model = service.models[name]
        task = _needed(model.localize, "this network has no localizer; --localizer gives the first of WEIGHTS one")
        (found,) = await service.run(task, [await _picture(request, service)], request.scope["exchange"])
        objects = [
            {"class": one.name, "posterior": one.posterior, "box": list(one.box), "rating": one.rating}
            for one in found.top[:top]
        ]
        size = {"height": found.height, "width": found.width}
        return {**_by(name, model), "protocol": str(found.protocol), **size, "top": objects}

    @app.post(
        "/models/{name}/heatmap",
        summary="Draw a class's score map over a picture, by default the most probable one's",
        openapi_extra=_PICTURE,
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def heat(
        request: Request,
        name: Name,
        label: Annotated[str | None, Query(alias="class")] = None,
        protocol: Protocol = None,
        form: Annotated[Literal["png", "values"], Query(description="A drawing, or JSON with the scores.")] = "png",
    ) -> Response:
        model = service.models[name]
        exchange: Exchange = request.scope["exchange"]
        (found,) = await service.run(model.heat_map(label, protocol), [await _picture(request, service)], exchange)
        if form == "values":
            return JSONResponse({**_by(name, model), **_scores(found, model)})
        return Response(await service.draw(found, model.net), media_type="image/png")

    @app.post("/models/{name}/descriptor", summary="Describe a picture by features", openapi_extra=_PICTURE)
    async def descriptor(
        request: Request,
        name: Name,
        scale: Annotated[list[Side], Query(max_length=8, description="Smallest sides in pixels; their mean.")] = [],  # noqa: B006
    ) -> dict[str, Any]:
        model = service.models[name]
        task = model.describe(scale)
        (row,) = await service.run(task, [await _picture(request, service)], request.scope["exchange"])
        return {**_by(name, model), "layer": task.layer, "scales": list(task.scales), "descriptor": row.tolist()}

    @app.post("/models/{name}/segment", summary="Say what each pixel of a picture is", openapi_extra=_PICTURE)
    async def segment(
        request: Request,
        name: Name,
        form: Annotated[
            Literal["values", "mask", "overlay", "geojson"],
            Query(description="JSON with the classes' areas and the mask, or one picture, or polygons."),
        ] = "values",
    ) -> Response:
        model = service.models[name]
        task = _needed(model.segment, "this network answers for whole pictures; train --task segment makes others")
        (found,) = await service.run(task, [await _picture(request, service)], request.scope["exchange"])
        content = await service.in_thread(partial(_SEGMENTED[form], found))
        if isinstance(content, bytes):
            return Response(content, media_type="image/png")
        return JSONResponse(content if form == "geojson" else {**_by(name, model), **content})

    @app.post("/models/{name}/distance", summary="Say how far apart two pictures look", openapi_extra=_PAIR)
    async def distance(request: Request, name: Name, metric: MetricName = "content") -> dict[str, Any]:
        model = service.models[name]
        kind, body = request.headers.get("content-type", ""), await request.body()
        files = await service.in_thread(partial(files_of, kind, body, 2))
        task, value = await service.compare(model, metric, files, request.scope["exchange"])
        return {**_by(name, model), **task.measure.provenance, "distance": value}

    @app.get("/models/{name}/protocols", summary="How pictures may be looked at, with what was measured of each")
    async def protocols(name: Name) -> list[dict[str, Any]]:
        model = service.models[name]
        return about_protocols(model, {p: s for (hash, p), s in service.measured.items() if hash == model.hash})

    @app.post("/models/{name}/protocols", summary="Measure what a picture of 640 x 480 pixels takes by each protocol")
    async def measure(request: Request, name: Name) -> list[dict[str, Any]]:
        model = service.models[name]
        return about_protocols(model, await service.measure(model, request.scope["exchange"]))


def _add_open_inference(app: FastAPI, service: Service) -> None:
    @app.get("/v2", summary="Open Inference Protocol: the service")
    async def about() -> dict[str, Any]:
        return open_inference.server()

    @app.get("/v2/health/live", summary="Open Inference Protocol: is it alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Open Inference Protocol: does it take requests")
    async def ready() -> dict[str, bool]:
        if app.state.guard.stopping:
            raise RefusedError(503, "the service is stopping")
        return {"ready": True}

    @app.get("/v2/models/{name}", summary="Open Inference Protocol: what goes in and what comes out")
    async def metadata(name: Name) -> dict[str, Any]:
        model = service.models[name]
        _needed(model.classify, NO_CLASSES)
        return open_inference.metadata(name, model)

    @app.get("/v2/models/{name}/ready", summary="Open Inference Protocol: does a network take requests")
    async def model_ready(name: Name) -> dict[str, Any]:
        _needed(service.models[name].classify, NO_CLASSES)
        return {"name": name, "ready": True}

    @app.post("/v2/models/{name}/infer", summary="Open Inference Protocol: run a network", openapi_extra=_TENSORS)
    async def infer(request: Request, name: Name) -> Response:
        model, exchange = service.models[name], request.scope["exchange"]
        task = _needed(model.classify, NO_CLASSES)
        body, length = await request.body(), request.headers.get(open_inference.LENGTH)
        text = len(body) if length is None else min(len(body), int(length) if length.isdecimal() else 0)
        exchange.hold(open_inference.JSON_COST * text + len(body))
        asked = await service.in_thread(partial(open_inference.Inference, body, length))
        predictions = await service.run(task, asked.pictures, exchange)
        content, headers = await service.in_thread(partial(asked.answer, name, model, predictions))
        return Response(content, headers=headers)


def _add_about(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Is it alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        guard: Guard = app.state.guard
        gauges = {**service.gauges(), "requests_in_work": guard.working, "held_bytes": guard.held}
        return PlainTextResponse(service.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    @app.get("/docs", summary="This page", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()))


def say_errors_in_one_line(app: FastAPI) -> None:
    """Answer whatever goes wrong with one line of JSON."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        headers = {"retry-after": "1"} if error.status in (429, 503) else None
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(UserError)
    async def wrong(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(MemoryError)
    async def full(request: Request, error: MemoryError) -> JSONResponse:
        return JSONResponse({"error": "not enough memory for this picture"}, 413)

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 422)

    @app.exception_handler(AnyHTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": f"{error.detail}; /docs lists what there is"}, error.status_code, error.headers)


async def _picture(request: Request, service: Service) -> bytes:
    kind, body = request.headers.get("content-type", ""), await request.body()
    return await service.in_thread(partial(picture_of, kind, body))  # taking a form apart may take its time


def _needed(task: Any, otherwise: str) -> Any:
    if task is None:
        raise RefusedError(404, otherwise)
    return task


def _by(name: str, model: Model) -> dict[str, str]:
    return {"model": name, "weights": model.hash[:16]}


def _about(name: str, model: Model) -> dict[str, Any]:
    whole = None if model.segment else model
    can = {
        "classify": model.classify,
        "localize": model.localize,
        "heatmap": model.classify,
        "segment": model.segment,
        "descriptor": whole,
        "distance": whole,
        "scoremap": model.dense,
    }
    return {
        **_by(name, model),
        "configuration": model.net.configuration.name,
        "protocol": None if model.segment else str(model.protocol),
        "tasks": [task for task, there in can.items() if there is not None],
        "classes": list(model.net.classes),
    }


def _areas(found: Segmented) -> dict[str, Any]:
    """Return the classes that are there, the largest first, with their colors in the mask, and the mask itself."""
    colors, size = palette(), found.labels.size
    areas = [
        {
            "class": label,
            "pixels": count,
            "share": count / size,
            "color": "#" + bytes(colors[found.classes.index(label)].tolist()).hex(),
        }
        for label, count in found.areas.items()
    ]
    height, width = found.labels.shape
    mask = base64.b64encode(_png(found.mask())).decode()
    return {"height": height, "width": width, "areas": areas, "mask": mask}


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


_SEGMENTED: dict[str, Callable[[Segmented], Any]] = {
    "values": _areas,
    "mask": lambda found: _png(found.mask()),
    "overlay": lambda found: _png(found.overlay()),
    "geojson": Segmented.geojson,
}


def _scores(found: Heat, model: Model) -> dict[str, Any]:
    """Return a score map, and where its cells lie in the picture of this height and width."""
    height, width = found.picture.shape[:2]
    place = {"height": height, "width": width, "stride": model.net.stride, "window": model.net.window}
    return {"class": found.label, "posterior": found.posterior, **place, "scores": found.scores.tolist()}


def _page(about: dict[str, Any]) -> str:
    """Return the OpenAPI description as a page that needs no other: the usual ones load scripts from elsewhere."""
    rows = []
    for path, methods in about["paths"].items():
        for method, what in methods.items():
            asked = ", ".join(one["name"] for one in what.get("parameters", []) if one["in"] == "query")
            cells = (method.upper(), path, what.get("summary", ""), asked)
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>verydeep {VERSION}</title>'
        "<style>body{font:16px sans-serif;margin:2em}td,th{padding:.3em 1em .3em 0;text-align:left}</style>"
        f"<h1>verydeep {VERSION}</h1><p>A picture is a file's bytes as the body, or a form with one file. "
        'For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<table><tr><th>Method</th><th>Path</th><th>What it does</th><th>Query</th></tr>\n{body}</table></html>\n"
    )
