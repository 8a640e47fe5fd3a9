"""`verydeep serve`: networks behind HTTP."""

from typing import Annotated

import typer

from verydeep.cli.options import Device, Engine, Precision

EXAMPLE = "verydeep serve runs/A --port 8000"


def serve(
    weights: Annotated[
        list[str], typer.Argument(help="Runs, weights files of any project, or caffe:vgg16 and the like.")
    ],
    localizer: Annotated[str | None, typer.Option(help="Weights or run that gives the first network's boxes.")] = None,
    protocol: Annotated[str | None, typer.Option(help="As for predict, of all networks.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one, which is printed.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VERYDEEP_TOKEN", help="That requests must bring: Authorization: Bearer TOKEN.")
    ] = None,
    memory: Annotated[str, typer.Option(help="For all that requests take, beside the weights.")] = "2GiB",
    wait: Annotated[str, typer.Option(help="That a picture may wait for others of its size to share a batch.")] = "5ms",
    label_studio: Annotated[
        bool, typer.Option("--label-studio", help="Answer Label Studio, too, under /label-studio/NAME.")
    ] = False,
    pictures: Annotated[
        str | None, typer.Option(help="Folder of the pictures that Label Studio's tasks name as files.")
    ] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> None:
    """Classify, localize, draw and describe uploaded pictures over HTTP, until SIGTERM or Ctrl-C.

    Clients of the Open Inference Protocol (KServe, Triton) find it under /v2; /docs lists every path. A weights file
    that changes is loaded anew while the old network answers. --label-studio pre-annotates for Label Studio.

    Example: verydeep serve runs/A --port 8000
    """
    from verydeep.basics.errors import UserError
    from verydeep.basics.extras import need
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.runtime import Runtime

    for module in ("fastapi", "uvicorn", "python_multipart"):
        need(module, "serve")
    from verydeep.serving.picture_folder import PictureFolder
    from verydeep.serving.serve import Address, Labeling, parse_wait
    from verydeep.serving.serve import serve as run

    if pictures is not None and not label_studio:
        raise UserError("--pictures: is for --label-studio, which is not there")
    labeling = Labeling(PictureFolder.open(pictures) if pictures is not None else None) if label_studio else None
    address, runtime = Address(host, port, token), Runtime(device, engine, parse_memory(memory), precision)
    run(weights, localizer, protocol, address, runtime, parse_wait(wait), labeling)
