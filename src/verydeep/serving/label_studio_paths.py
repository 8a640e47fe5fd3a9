"""The paths that Label Studio asks an ML backend for, below /label-studio/NAME for each network."""

from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request

from verydeep.serving import label_studio
from verydeep.serving.guard import Exchange
from verydeep.serving.label_studio import Project
from verydeep.serving.models import Model
from verydeep.serving.open_inference import JSON_COST
from verydeep.serving.picture_folder import PictureFolder
from verydeep.serving.refusal import RefusedError
from verydeep.serving.service import Service

Name = Annotated[str, Path(description="One of /models.")]
BASE = "/label-studio/{name}"
TRAINING = ("START_TRAINING",)
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
_FROM_EXPORTS = "networks are trained from what you export: verydeep train --data EXPORT"


def add_label_studio(app: FastAPI, service: Service, folder: PictureFolder | None) -> None:
    """Add the protocol's paths; pictures that are files come from the folder."""

    @app.get(f"{BASE}/health", summary="Label Studio: is it alive")
    async def health(name: Name) -> dict[str, str]:
        return {"status": "UP", "model_class": "verydeep", "model_version": label_studio.version(service.models[name])}

    @app.post(f"{BASE}/setup", summary="Label Studio: does a network fit a project", openapi_extra=_BODY)
    async def setup(request: Request, name: Name) -> dict[str, str]:
        model = service.models[name]
        asked = label_studio.object_of(await _body(request))
        config = asked.get("schema") or asked.get("label_config")
        await service.in_thread(partial(label_studio.project_of, config, model))
        return {"model_version": label_studio.version(model)}

    @app.post(f"{BASE}/predict", summary="Label Studio: pre-annotate tasks", openapi_extra=_BODY)
    async def predict(request: Request, name: Name) -> dict[str, Any]:
        model, exchange = service.models[name], request.scope["exchange"]
        body = await _body(request)
        tasks, config = await service.in_thread(partial(label_studio.tasks_of, body))
        project = await service.in_thread(partial(label_studio.project_of, config, model))
        results, before = [], exchange.held
        for task in tasks:
            exchange.let_go(before)
            read = partial(label_studio.picture_in, task, project.key, folder, exchange)
            results.append(await _annotated(service, model, project, await service.in_thread(read), exchange))
        return {"results": results, "model_version": label_studio.version(model)}

    @app.post(f"{BASE}/versions", summary="Label Studio: the networks there are", openapi_extra=_BODY)
    async def versions(name: Name) -> dict[str, list[str]]:
        return {"versions": [label_studio.version(service.models[name])]}

    @app.post(f"{BASE}/webhook", summary="Label Studio: what happened, of which nothing is kept", openapi_extra=_BODY)
    async def webhook(request: Request, name: Name) -> dict[str, str]:
        if label_studio.object_of(await _body(request)).get("action") in TRAINING:
            raise RefusedError(422, _FROM_EXPORTS)
        return {"model_version": label_studio.version(service.models[name])}

    @app.post(f"{BASE}/train", summary="Label Studio: refused; networks are trained from exports", openapi_extra=_BODY)
    async def train(name: Name) -> None:
        raise RefusedError(422, _FROM_EXPORTS)


async def _body(request: Request) -> bytes:
    body = await request.body()
    request.scope["exchange"].hold(JSON_COST * len(body))
    return body


async def _annotated(
    service: Service, model: Model, project: Project, picture: bytes, exchange: Exchange
) -> dict[str, Any]:
    prediction = located = segmented = None
    if project.choices:
        (prediction,) = await service.run(model.classify, [picture], exchange)
    if project.boxes:
        (located,) = await service.run(model.localize, [picture], exchange)
    if project.masks:
        (segmented,) = await service.run(model.segment, [picture], exchange)
    return await service.in_thread(partial(label_studio.annotation, project, model, prediction, located, segmented))
