"""`verydeep bench`: timed comparisons with the usual way of doing a thing."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from verydeep.cli.options import Csv, Device, Json, Pictures, Repeats, Threads, Width

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Compare with the usual way of doing a thing: times and ratios in one run.

    Example: verydeep bench loading --data imagenet-samples.tar
    """


@app.command()
def loading(
    data: Annotated[
        Path | None, typer.Option(help="Folder or .tar with images; default: two photographs, enlarged and cut.")
    ] = None,
    crop: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 224,
    scales: Annotated[str, typer.Option(help="SMIN,SMAX of the smallest image side.")] = "256,512",
    rounds: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 7,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Load training crops, and do the same with Pillow: images per second and core.

    Example: verydeep bench loading --data imagenet-samples.tar
    """
    from benchmarks.loading import run, text
    from verydeep.basics.errors import UserError

    limits = _numbers("--scales", scales)
    if len(limits) != 2:
        raise UserError(f"--scales {scales!r}: expected two whole numbers, for example 256,512")
    _show(run(data, crop=crop, scales=(limits[0], limits[1]), rounds=rounds), text, json_, csv)


@app.command()
def dense(
    repeats: Repeats = 5,
    side: Annotated[int, typer.Option(help="Side of the square picture in pixels, a multiple of 32.")] = 384,
    width: Width = 1.0,
    device: Device = "auto",
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Evaluate a whole picture by D densely, and run its windows as crops: seconds of both, how far scores agree.

    Example: verydeep bench dense --width 0.125 --repeats 1
    """
    from benchmarks.dense import run, text

    _show(run(repeats, side, width, device), text, json_, csv)


@app.command()
def training(
    net: Annotated[str, typer.Option(help="Configuration: A, B, C, D, E.")] = "D",
    size: Annotated[int, typer.Option(min=32, help="Side of the images in pixels, a multiple of 32.")] = 224,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 16,
    batch_norm: Annotated[bool, typer.Option("--batch-norm", help="Batch norm behind every convolution.")] = False,
    repeats: Repeats = 5,
    width: Width = 1.0,
    threads: Threads = None,
    variants: Annotated[
        str | None, typer.Option(help="Which to measure, by commas; default: all that run here.")
    ] = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Time a training step by each engine, and that of a VGG as it is usually written: seconds and peak memory of all.

    Example: verydeep bench training --net A --width 0.25 --size 64 --variants "native,torch,plain,plain channels_last"
    """
    from benchmarks.training import VARIANTS, Task, run, text

    chosen = variants.split(",") if variants else list(VARIANTS)
    _show(run(Task(net, width, size, batch_size, batch_norm, threads), repeats, chosen), text, json_, csv)


@app.command()
def localization(
    repeats: Repeats = 3,
    side: Annotated[int, typer.Option(help="Side of the square picture in pixels, a multiple of 32.")] = 384,
    width: Width = 1.0,
    boxes: Annotated[int, typer.Option(help="Boxes to merge.")] = 10_000,
    device: Device = "auto",
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Localize by D densely and window by window, with convolutions shared by both networks or not; merge many boxes.

    Example: verydeep bench localization --width 0.125 --repeats 1 --boxes 500
    """
    from benchmarks.localization import run, text

    _show(run(repeats, side, width, boxes, device), text, json_, csv)


@app.command()
def features(
    images: Annotated[int, typer.Option(help="Pictures of 640 x 427 pixels.")] = 16,
    scale: Annotated[int, typer.Option(help="Q, the smallest side in pixels that they are rescaled to.")] = 256,
    width: Width = 1.0,
    repeats: Repeats = 3,
    device: Device = "auto",
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Describe picture files by D, and run the bare forward passes: images a second of both.

    Example: verydeep bench features --images 2 --repeats 1
    """
    from benchmarks.features import run, text

    _show(run(images, scale, width, repeats, device), text, json_, csv)


@app.command()
def perceptual(
    side: Annotated[int, typer.Option(help="Side of the square pictures of a loss in pixels.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of pictures of a loss.")] = 8,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the two pictures of a metric.")] = "800x1080",
    repeats: Repeats = 5,
    threads: Threads = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Compute LPIPS as a loss with its gradient, and as a metric, beside lpips and pyiqa: seconds and peak memory.

    Example: verydeep bench perceptual --side 32 --batch-size 2 --size 48x64 --repeats 1
    """
    from benchmarks.perceptual import run, text

    _show(run(side, batch_size, _size(size), repeats, threads), text, json_, csv)


@app.command()
def inference(
    net: Annotated[str, typer.Option(help="Configuration: A, B, C, D, E, ...")] = "D",
    size: Annotated[str, typer.Option(help="Image sizes in pixels: 224, or HEIGHTxWIDTH; several by commas.")] = "224",
    batch: Annotated[str, typer.Option(help="Images in a batch; several by commas.")] = "1,8",
    repeats: Repeats = 9,
    width: Width = 1.0,
    threads: Threads = None,
    layers: Annotated[bool, typer.Option("--layers", help="The native engine's layers, each by itself.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw the figures, too: a .png or .svg file.")] = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Time a network by the native engine, torch, torch.compile, ONNX Runtime and OpenVINO, in turn in one run.

    Runtimes that are not installed are named and left out.

    Example: verydeep bench inference --net A --width 0.125 --batch 1 --repeats 1
    """
    import torch

    from benchmarks import inference, inference_chart, native_layers

    if threads:
        torch.set_num_threads(threads)
    batches, sizes = _numbers("--batch", batch), [_size(text) for text in size.split(",")]
    if layers:
        _show(native_layers.run(net, sizes[0][0], batches[0], repeats, width), native_layers.text, json_, csv)
    else:
        result = inference.run(net, sizes, batches, repeats, width)
        if chart:
            inference_chart.draw(result, chart)
        _show(result, inference.text, json_, csv)


@app.command()
def serving(
    net: Annotated[str, typer.Option(help="Configuration: A, B, C, D, E, ...")] = "D",
    clients: Annotated[int, typer.Option(min=1, help="That ask at the same time.")] = 32,
    requests: Annotated[int, typer.Option(min=1, help="In each round.")] = 64,
    repeats: Repeats = 5,
    width: Width = 1.0,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Ask `verydeep serve`, LitServe and BentoML for the classes of JPEG files, and run the bare engine, in turn.

    Servers that are not installed are named and left out.

    Example: verydeep bench serving --net A --width 0.125 --clients 4 --requests 8 --repeats 1
    """
    from benchmarks.serving import run, text

    _show(run(net, clients, requests, repeats, width), text, json_, csv)


@app.command()
def scoremap(
    side: Annotated[int, typer.Option(help="Side of the square image in pixels.")] = 2048,
    memory: Annotated[str, typer.Option(help="Limit of the limited way.")] = "2GiB",
    width: Width = 0.25,
    alone: Annotated[
        bool, typer.Option("--alone", help="Only the limited way, for images whose activations would not fit.")
    ] = False,
    threads: Threads = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Compute B's score map of a large image in bands, whole, and by overlapping tiles: time, memory and error.

    MONAI's sliding window is one of the ways where MONAI is installed.

    Example: verydeep bench scoremap --side 512 --width 0.0625 --alone
    """
    from benchmarks.scoremap import run, text
    from verydeep.inference.memory import parse_memory

    _show(run(side, parse_memory(memory), width, alone, threads), text, json_, csv)


@app.command()
def accuracy(
    images: Pictures,
    weights: Annotated[Path | None, typer.Option(help="Weights file; default: random weights.")] = None,
    net: Annotated[str, typer.Option(help="Configuration of random weights.")] = "D",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many pictures.")] = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Compare the native engine's scores of photographs with those in float64, and its rankings with torch's.

    Example: verydeep bench accuracy photos --net A --limit 2
    """
    from benchmarks.accuracy import run, text

    _show(run(images, weights, net, limit), text, json_, csv)


@app.command()
def winograd(
    net: Annotated[str, typer.Option(help="Configuration: A, A-LRN, B, D or E.")] = "D",
    side: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 224,
    width: Width = 1.0,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Show how errors grow through a network by Winograd's filtering with tiles of 2, 4 and 6 outputs.

    Example: verydeep bench winograd --width 0.125 --side 64
    """
    from benchmarks.winograd import run, text

    _show(run(net, side, width), text, json_, csv)


@app.command()
def mosaic(
    data: Annotated[Path, typer.Argument(help="Folder or .tar of photographs whose names begin with a WordNet id.")],
    weights: Annotated[Path, typer.Option(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    scales: Annotated[str, typer.Option(help="Factors on the mosaic's sides.")] = "0.1,0.125,0.2",
    side: Annotated[int, typer.Option(help="Pixels of each photograph's square.")] = 720,
    stride: Annotated[int, typer.Option(help="Pixels between cells.")] = 8,
    memory: Annotated[str, typer.Option(help="That the process may hold for the map.")] = "2GiB",
    picture: Annotated[Path | None, typer.Option(help="Draw what was found, without the photographs.")] = None,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Join photographs into one large image, and see whether its score map finds what is where.

    Example: verydeep bench mosaic imagenet-samples.tar --weights runs/B --picture mosaic.png
    """
    from benchmarks.mosaic import run, text
    from verydeep.basics.errors import UserError
    from verydeep.inference.memory import parse_memory
    from verydeep.training.run_folder import find_weights

    try:
        factors = [float(word) for word in scales.split(",")]
    except ValueError:
        raise UserError(f"--scales {scales!r}: expected numbers, for example 0.1,0.2") from None
    _show(run(data, find_weights(weights), factors, side, stride, parse_memory(memory), picture), text, json_, csv)


def _numbers(option: str, text: str) -> list[int]:
    from verydeep.basics.errors import UserError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r}: expected whole numbers, for example 1,8") from None


def _size(text: str) -> tuple[int, int]:
    height, times, width = text.partition("x")
    rows, columns = _numbers("--size", f"{height},{width if times else height}")
    return rows, columns


def _show(result: dict[str, Any], text: Callable[[dict[str, Any]], str], json_: bool, csv: bool) -> None:
    """Print a benchmark's result in the form asked for; the text ends with the machine it was measured on."""
    import json

    if json_:
        typer.echo(json.dumps(result))
    elif csv:
        typer.echo(_csv(result), nl=False)
    else:
        typer.echo(text(result))
        typer.echo("machine: " + ", ".join(f"{key} {value}" for key, value in result["machine"].items()))


def _csv(result: dict[str, Any]) -> str:
    """Return one line per row; what holds for all rows is repeated in each."""
    import csv
    import io

    common = {key: value for key, value in result.items() if key not in ("rows", "machine")} | result["machine"]
    file = io.StringIO()
    writer = csv.DictWriter(file, [*result["rows"][0], *common], lineterminator="\n")
    writer.writeheader()
    for row in result["rows"]:
        values = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in (row | common).items()}
        writer.writerow(values)
    return file.getvalue()


@app.command()
def content(
    files: Annotated[int, typer.Option(min=1, help="How many files.")] = 100_000,
    size: Annotated[int, typer.Option(min=1, help="Bytes of each.")] = 1000,
    csv: Csv = False,
    json_: Json = False,
) -> None:
    """Know a data set by its contents: seconds for the first time, and again.

    Example: verydeep bench content --files 100000
    """
    from benchmarks.content import run, text

    _show(run(files, size), text, json_, csv)
