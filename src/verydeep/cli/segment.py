"""`verydeep segment`: the class of each pixel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verydeep.cli.console import echo
from verydeep.cli.each_picture import drawings, each_picture, find_files, finish
from verydeep.cli.options import Device, Engine, Json, Memory, Pictures

if TYPE_CHECKING:
    from verydeep.segmentation.segment import Segmented

EXAMPLE = "verydeep segment photo.jpg --weights runs/8s --out masks"


def segment(
    images: Pictures,
    weights: Annotated[Path, typer.Option(help="Run or weights file of a network for each pixel.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for each picture's NAME.png, NAME-overlay.png and NAME.geojson.")
    ] = None,
    bands: Annotated[
        Path | None,
        typer.Option(help="Of one image of any size, in bands: .tif, or a .zarr folder; a stopped one is continued."),
    ] = None,
    factor: Annotated[
        float | None, typer.Option(help="On the pictures' sides before they are run; default: as in training.")
    ] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    json_: Json = False,
) -> None:
    """Say of each pixel of pictures which class it is of: areas by class, masks, overlays, polygons.

    NAME.png holds the labels, with VOC's palette; NAME.geojson a polygon for each connected region, along the edges of
    pixels, in the coordinates of a GeoTIFF, else in pixels.

    Images too large for memory are segmented in bands of rows, to the whole image's map: --bands map.tif is a tiled
    TIFF, georeferenced where the image is; both kinds have the size of the image times the factor.

    Example: verydeep segment photo.jpg --weights runs/8s --out masks
    """
    from verydeep.basics.errors import UserError
    from verydeep.checkpoints.reading import load
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.runtime import Runtime
    from verydeep.segmentation.segment import segmented
    from verydeep.segmentation.segmenter import Segmenter
    from verydeep.training.run_folder import find_weights

    if factor is not None and not 0 < factor < 100:
        raise UserError(f"--factor {factor:g}: expected a number above 0 and below 100, such as 0.5")
    if bands is not None:
        if out is not None or len(images) != 1:
            raise UserError("--bands: takes one image, and no --out")
        _in_bands(images[0], find_weights(weights), bands, factor, parse_memory(memory), device, json_)
        return
    files, skipped = find_files(images)
    net, runtime = load(find_weights(weights)), Runtime(device, engine, parse_memory(memory))
    net.check_task("segment", weights)
    segmenter = Segmenter.of(net, runtime, factor, len(files))
    rows: list[dict[str, Any]] = []
    names = drawings(files, out)
    for result in each_picture(files, lambda file: segmented(segmenter, file, str(file)), rows):
        written = _write(result, names[result.name]) if out else []
        rows.append({**_values(result), "files": written})
        if not json_:
            echo("\n".join([_words(result), *(f"  {file}" for file in written)]))
    finish(rows, json_, None, skipped)


def _write(result: "Segmented", path: Path) -> list[str]:
    import json

    from verydeep.basics.files import write_aside, write_text

    pictures = {path: result.mask(), path.with_name(f"{path.stem}-overlay.png"): result.overlay()}
    for file, image in pictures.items():
        with write_aside(file) as aside:
            image.save(aside, "PNG")
    polygons = path.with_suffix(".geojson")
    write_text(polygons, json.dumps(result.geojson()))
    return [*map(str, pictures), str(polygons)]


def _values(result: "Segmented") -> dict[str, Any]:
    height, width = result.labels.shape
    areas = [{"class": name, "pixels": n, "share": n / result.labels.size} for name, n in result.areas.items()]
    return {"image": result.name, "height": height, "width": width, "areas": areas}


def _words(result: "Segmented") -> str:
    height, width = result.labels.shape
    wide = max(map(len, result.areas))
    lines = [f"{result.name} ({width} x {height} pixels)"]
    lines += [f"  {name.ljust(wide)}  {n / result.labels.size:6.1%}  {n:,} pixels" for name, n in result.areas.items()]
    return "\n".join(lines)


def _in_bands(
    image: Path, weights: Path, out: Path, factor: float | None, memory: int, device: str, as_json: bool
) -> None:
    import json

    from verydeep.segmentation.large import segment_in_bands

    about = segment_in_bands(image, weights, out, factor=factor, memory=memory, device=device, quiet=as_json)
    if as_json:
        echo(json.dumps(about, indent=2))
    else:
        echo(f"{about['image']}: map of {about['map'][0]} x {about['map'][1]} pixels, {about['strips']} strips\n{out}")
