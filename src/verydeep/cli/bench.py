"""`verydeep bench`: timed comparisons with the usual way of doing a thing."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

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
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load training crops, and do the same with Pillow: images per second and core.

    Example: verydeep bench loading --data imagenet-samples.tar
    """
    from verydeep.benchmarks.loading import run

    result = run(data, crop=crop, scales=_pair(scales), rounds=rounds)
    _show(result, _loading_text, json_, csv)


def _pair(text: str) -> tuple[int, int]:
    from verydeep.basics.errors import UserError

    try:
        least, most = map(int, text.split(","))
    except ValueError:
        raise UserError(f"--scales {text!r}: expected two whole numbers, for example 256,512") from None
    return least, most


def _loading_text(result: dict[str, Any]) -> str:
    smin, smax = result["scales"]
    lines = [
        f"{result['images']} images of {result['data']}, crops of {result['crop']}, S in [{smin};{smax}]",
        f"{'':28}{'images/s/core':>14}{'ratio':>8}",
    ]
    for row in result["rows"]:
        lines.append(f"{row['pipeline']:28}{row['images_per_second_core']:14.0f}{row['ratio']:8.2f}")
    lines += [
        f"ratio in {result['rounds']} rounds: {result['ratio_least']:.2f} to {result['ratio_greatest']:.2f}, "
        f"target {result['ratio_target']}",
        f"mean absolute difference of the crops: {result['mean_difference']:.2f} grey levels of 255 "
        f"(worst image {result['worst_difference']:.2f})",
    ]
    return "\n".join(lines)


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
def dense(
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 5,
    side: Annotated[int, typer.Option(help="Side of the square picture in pixels, a multiple of 32.")] = 384,
    width: Annotated[float, typer.Option(help="Factor on the network's channels; 1 is the paper's D.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate a whole picture densely, and run its windows as crops: seconds of both, and how far scores agree.

    Example: verydeep bench dense --width 0.125 --repeats 1
    """
    from verydeep.benchmarks.dense import run

    result = run(repeats, side, width, device)
    _show(result, _dense_text, json_, csv)


def _dense_text(result: dict[str, Any]) -> str:
    side, threads = result["side"], result["threads"]
    lines = [
        f"configuration D, width {result['width']}, {side} x {side} pixels, {result['windows']} windows, "
        f"{result['device']}, {threads} threads; median of {result['repeats']}",
        *(f"{row['way']:8}batch {row['batch']:3}{row['seconds']:10.3f} s" for row in result["rows"]),
        f"dense is {result['ratio']:.1f} times faster (target {result['ratio_target']:.0f}, by multiply-adds "
        f"{result['multiply_add_ratio']:.1f})",
        f"scores that see no border differ by {result['interior_difference']:.1e} of their spread; with those of the "
        f"crops, padded with zeros, the map correlates {result['crop_correlation']:.3f}",
    ]
    return "\n".join(lines)


@app.command()
def training(
    batch_size: Annotated[int, typer.Option(min=1, help="Images of 224 x 224 pixels in a step.")] = 16,
    repeats: Annotated[int, typer.Option(min=1, help="Timed steps of each variant.")] = 5,
    width: Annotated[float, typer.Option(help="Factor on all channels; 1 is the paper's D.")] = 1.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: torch's own choice.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a training step of D, and that of VGG-16 as it is usually written: seconds and peak memory of both.

    Example: verydeep bench training --width 0.125 --batch-size 2 --repeats 1
    """
    from verydeep.benchmarks.training import run

    result = run(batch_size, repeats, width, threads)
    _show(result, _training_text, json_, csv)


def _training_text(result: dict[str, Any]) -> str:
    lines = [
        f"a step of D, width {result['width']}, at 224 x 224, batch {result['batch_size']}, float32, "
        f"median of {result['repeats']}"
    ]
    lines += [
        f"{row['variant']:22}{row['seconds']:8.2f} s{row['peak_memory'] / 2**30:8.2f} GiB   loss {row['loss']:.4f}"
        for row in result["rows"]
    ]
    lines += [
        f"time: {result['time_ratio']:.2f} of the faster plain one's; memory: {result['memory_ratio']:.2f} of the "
        f"smaller one's; losses differ by {result['loss_difference']:.1e}",
    ]
    return "\n".join(lines)


@app.command()
def localization(
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each way.")] = 3,
    side: Annotated[int, typer.Option(help="Side of the square picture in pixels, a multiple of 32.")] = 384,
    width: Annotated[float, typer.Option(help="Factor on the networks' channels; 1 is the paper's D.")] = 1.0,
    boxes: Annotated[int, typer.Option(help="Boxes to merge.")] = 10_000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Localize densely and window by window, with convolutions shared by both networks or not; merge many boxes.

    Example: verydeep bench localization --width 0.125 --repeats 1 --boxes 500
    """
    from verydeep.benchmarks.localization import run

    result = run(repeats, side, width, boxes, device)
    _show(result, _localization_text, json_, csv)


def _localization_text(result: dict[str, Any]) -> str:
    side, threads = result["side"], result["threads"]
    lines = [
        f"classifier and localizer D, width {result['width']}, {side} x {side} pixels, {result['windows']} windows "
        f"(batches of {result['batch']}), {result['device']}, {threads} threads; median of {result['repeats']}",
        *(
            f"{row['way']:8} convolutions {row['convolutions']:8}{row['seconds']:9.3f} s"
            f"{row['multiply_adds'] / 1e9:9.1f} G multiply-adds"
            for row in result["rows"]
        ),
        f"dense is {result['ratio']:.2f} times faster than windows; by multiply-adds "
        f"{result['multiply_add_ratio']:.2f} (target: within {result['ratio_target']:.0%})",
        f"shared convolutions are {result['shared_ratio']:.2f} times faster than separate ones; by multiply-adds "
        f"{result['shared_multiply_add_ratio']:.2f}",
    ]
    lines += [
        f"merging {result['boxes']:,} boxes around {clusters:,} place{'s' * (clusters > 1)}: {seconds:.2f} s "
        f"(target: {result['merge_target']:g} s)"
        for clusters, seconds in zip(result["merge_clusters"], result["merge_seconds"], strict=True)
    ]
    return "\n".join(lines)


@app.command()
def features(
    images: Annotated[int, typer.Option(help="Pictures of 640 x 427 pixels.")] = 16,
    scale: Annotated[int, typer.Option(help="Q, the smallest side in pixels that they are rescaled to.")] = 256,
    width: Annotated[float, typer.Option(help="Factor on all channels; 1 is the paper's D.")] = 1.0,
    repeats: Annotated[int, typer.Option(help="Timed runs of each way.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe picture files, and run the bare forward passes: images a second of both.

    Example: verydeep bench features --images 2 --repeats 1
    """
    from verydeep.benchmarks.features import run

    _show(run(images, scale, width, repeats, device), _features_text, json_, csv)


def _features_text(result: dict[str, Any]) -> str:
    lines = [
        f"fc7 of D, width {result['width']}, of {result['images']} JPEG files at {result['scale']} with their mirror "
        f"images, {result['device']}, {result['threads']} threads; median of {result['repeats']}",
        *(f"{row['way']:12}{row['images_per_second']:10.2f} images/s" for row in result["rows"]),
        f"extraction reaches {result['ratio']:.0%} of the throughput of the bare passes "
        f"(target {result['ratio_target']:.0%})",
    ]
    return "\n".join(lines)


@app.command()
def inference(
    net: Annotated[str, typer.Option(help="Configuration: A, B, C, D, E, ...")] = "D",
    size: Annotated[str, typer.Option(help="Image sizes in pixels: 224, or HEIGHTxWIDTH; several by commas.")] = "224",
    batch: Annotated[str, typer.Option(help="Images in a batch; several by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each runtime.")] = 9,
    width: Annotated[float, typer.Option(help="Factor on the network's channels; 1 is the paper's.")] = 1.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: torch's own choice.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="The native engine's layers, each by itself.")] = False,
    chart: Annotated[Path | None, typer.Option(help="Draw the figures, too: a .png or .svg file.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time a network by the native engine, torch, torch.compile, ONNX Runtime and OpenVINO, in turn in one run.

    Runtimes that are not installed are named and left out.

    Example: verydeep bench inference --net A --width 0.125 --batch 1 --repeats 1
    """
    import torch

    from verydeep.benchmarks import inference, inference_chart, native_layers

    if threads:
        torch.set_num_threads(threads)
    batches, sizes = _numbers("--batch", batch), [_size(text) for text in size.split(",")]
    if layers:
        _show(native_layers.run(net, sizes[0][0], batches[0], repeats, width), _layers_text, json_, csv)
    else:
        result = inference.run(net, sizes, batches, repeats, width)
        if chart:
            inference_chart.draw(result, chart)
        _show(result, _inference_text, json_, csv)


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


def _inference_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['net']}, width {result['width']}, {result['threads']} threads, code for {result['processor_code']}; "
        f"median of {result['repeats']}; a matrix product runs at {result['matrix_peak']:.0f} GFLOP/s",
        f"{'size':>9}{'batch':>7}  {'runtime':15}{'ms/image':>10}{'ratio':>8}{'GFLOP/s':>9}{'difference':>12}",
    ]
    for row in result["rows"]:
        size = f"{row['height']}x{row['width_pixels']}"
        lines.append(
            f"{size:>9}{row['batch']:7}  {row['runtime']:15}{row['milliseconds']:10.1f}{row['ratio']:8.2f}"
            f"{row['gflops']:9.0f}{row['difference']:12.1e}"
        )
    lines += [
        "ratio: time of the fastest float32 peer over this one's; difference: of the scores from torch's",
        *(f"left out: {name}: {reason}" for name, reason in result["missing"].items()),
    ]
    return "\n".join(lines)


def _layers_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['net']}, batch {result['batch']}, {result['threads']} threads, code for {result['processor_code']}; "
        f"median of {result['repeats']}",
        f"{'layer':9}{'input':17}{'ms':>8}{'limit':>8}{'share':>7}  bound by",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['layer']:9}{row['input']:17}{row['milliseconds']:8.2f}{row['limit']:8.2f}{row['share']:7.0%}  "
            f"{row['bound']}"
        )
    total, least = (sum(row[key] for row in result["rows"]) for key in ("milliseconds", "limit"))
    lines += [
        f"{'sum':26}{total:8.2f}{least:8.2f}{least / total:7.0%}",
        f"limits: {result['matrix_peak']:.0f} GFLOP/s in a matrix product, {result['read_bandwidth']:.1f} GB/s read",
    ]
    return "\n".join(lines)


@app.command()
def scoremap(
    side: Annotated[int, typer.Option(help="Side of the square image in pixels.")] = 2048,
    memory: Annotated[str, typer.Option(help="Limit of the limited way.")] = "2GiB",
    width: Annotated[float, typer.Option(help="Factor on the network's channels; 1 is the paper's B.")] = 0.25,
    alone: Annotated[
        bool, typer.Option("--alone", help="Only the limited way, for images whose activations would not fit.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: torch's own choice.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute the score map of a large image in bands, whole, and by overlapping tiles: time, memory and error.

    MONAI's sliding window is one of the ways where MONAI is installed.

    Example: verydeep bench scoremap --side 512 --width 0.0625 --alone
    """
    from verydeep.benchmarks.scoremap import run
    from verydeep.evaluation.memory import parse_memory

    result = run(side, parse_memory(memory), width, alone, threads)
    _show(result, _scoremap_text, json_, csv)


def _scoremap_text(result: dict[str, Any]) -> str:
    lines = [
        f"configuration B, width {result['width']}, {result['side']} x {result['side']} pixels, limit "
        f"{result['limit'] / 2**30:.2f} GiB; memory is what the whole process held at most"
    ]
    for row in result["rows"]:
        error = f"   off by {row['error']:.1e} of the map's greatest value" if "error" in row else ""
        times = f"{row['seconds']:9.2f} s ({row['cpu_seconds']:.1f} s of processors)"
        lines.append(f"{row['way']:16}{times}{row['peak_memory'] / 2**30:8.2f} GiB{error}")
    return "\n".join(lines)


@app.command()
def accuracy(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    weights: Annotated[Path | None, typer.Option(help="Weights file; default: random weights.")] = None,
    net: Annotated[str, typer.Option(help="Configuration of random weights.")] = "D",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many pictures.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the native engine's scores of photographs with those in float64, and its rankings with torch's.

    Example: verydeep bench accuracy photos --net A --limit 2
    """
    from verydeep.benchmarks.accuracy import run

    _show(run(images, weights, net, limit), _accuracy_text, json_, csv)


def _accuracy_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['net']} with {result['weights']} weights, {result['pictures']} pictures; relative errors against "
        "float64, rankings of the best five classes against torch's",
        f"{'':17}{'greatest':>10}{'median':>10}{'same':>6}{'ties':>6}{'otherwise':>11}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['way']:17}{row['greatest']:10.1e}{row['median']:10.1e}{row['same_ranking']:6}{row['ties']:6}"
            f"{row['otherwise']:11}"
        )
    return "\n".join(lines)


@app.command()
def winograd(
    net: Annotated[str, typer.Option(help="Configuration: A, A-LRN, B, D or E.")] = "D",
    side: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 224,
    width: Annotated[float, typer.Option(help="Factor on the network's channels; 1 is the paper's.")] = 1.0,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how errors grow through a network by Winograd's filtering with tiles of 2, 4 and 6 outputs.

    Example: verydeep bench winograd --width 0.125 --side 64
    """
    from verydeep.benchmarks.winograd import run

    _show(run(net, side, width), _winograd_text, json_, csv)


def _winograd_text(result: dict[str, Any]) -> str:
    blocks = [key for key in result["rows"][0] if key.startswith("block")]
    lines = [
        f"{result['net']}, width {result['width']}, {result['side']} x {result['side']} pixels: relative errors behind "
        "each block, against float64",
        f"{'':18}{'products':>9}" + "".join(f"{block:>10}" for block in blocks),
    ]
    for row in result["rows"]:
        errors = "".join(f"{row[block]:10.1e}" for block in blocks)
        lines.append(f"{row['way']:18}{row['multiplications']:9.2f}{errors}")
    return "\n".join(lines)


@app.command()
def mosaic(
    data: Annotated[Path, typer.Argument(help="Folder or .tar of photographs whose names begin with a WordNet id.")],
    weights: Annotated[Path, typer.Option(help="Weights file, or the folder of a run.")],
    scales: Annotated[str, typer.Option(help="Factors on the mosaic's sides.")] = "0.1,0.125,0.2",
    side: Annotated[int, typer.Option(help="Pixels of each photograph's square.")] = 720,
    stride: Annotated[int, typer.Option(help="Pixels between cells.")] = 8,
    memory: Annotated[str, typer.Option(help="That the process may hold for the map.")] = "2GiB",
    picture: Annotated[Path | None, typer.Option(help="Draw what was found, without the photographs.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Join photographs into one large image, and see whether its score map finds what is where.

    Example: verydeep bench mosaic imagenet-samples.tar --weights runs/B --picture mosaic.png
    """
    from verydeep.benchmarks.mosaic import run
    from verydeep.evaluation.memory import parse_memory
    from verydeep.training.run_folder import find_weights

    factors = [float(word) for word in scales.split(",")]
    result = run(data, find_weights(weights), factors, side, stride, parse_memory(memory), picture)
    _show(result, _mosaic_text, json_, csv)


def _mosaic_text(result: dict[str, Any]) -> str:
    known = result["known"]
    lines = [
        f"{result['photographs']} photographs, {result['mosaic_width']} x {result['mosaic_height']} pixels; {known} "
        f"are of one of the network's {result['classes']} classes; a cell every {result['stride']} pixels, "
        f"{result['seconds']:.1f} s for all scales"
    ]
    for row in result["rows"]:
        lines.append(
            f"scale {row['scale']:<6g}{row['cells']:9} cells; of {known}: class first {row['found_1']}, among five "
            f"{row['found_5']} (by itself {row['alone_1']} and {row['alone_5']}), highest cell of the class inside "
            f"{row['peaks']}; off the whole image's map by {row['error']:.1e}"
        )
    return "\n".join(lines)
