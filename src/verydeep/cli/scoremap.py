"""`verydeep scoremap`: what is where in an image of any size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Engine, Json

if TYPE_CHECKING:
    from verydeep.scoremaps.plan import Plan
    from verydeep.scoremaps.score_map import Job, ScoreMap

EXAMPLE = (
    "verydeep scoremap slide.tif --weights runs/A --out map.zarr --scales 1,0.5 --memory 2GiB --peaks peaks.csv "
    "--overview overview.png"
)


def scoremap(
    image: Annotated[Path, typer.Argument(help="JPEG, PNG, TIFF, BigTIFF, slide, .zarr or .npy, of any size.")],
    weights: Annotated[Path, typer.Option(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    out: Annotated[Path, typer.Option(help="Zarr folder of the map; the same map's is continued.")],
    scales: Annotated[str, typer.Option(help="Factors on the image's sides.")] = "1",
    classes: Annotated[str | None, typer.Option(help="Which to keep, separated by commas; default: all.")] = None,
    softmax: Annotated[
        bool, typer.Option("--softmax/--scores", help="Posteriors of all classes, or scores before the soft-max.")
    ] = True,
    region: Annotated[
        str | None, typer.Option(help="x,y,width,height: cells whose windows lie in it, as they are in the whole map.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the image's size, or a whole fraction of it; 0 is left out.")
    ] = None,
    memory: Annotated[str, typer.Option(help="That the process may hold; on a GPU, that the work may.")] = "2GiB",
    stride: Annotated[
        int | None, typer.Option(help="Pixels between cells, by OverFeat's pooling offsets: 16, 8, 4 ...")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and compute nothing.")] = False,
    peaks: Annotated[
        Path | None, typer.Option(help="Write local maxima, one for each thing: .csv or .geojson.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Least value of a peak, and of a colored cell.")] = 0.5,
    tiff: Annotated[
        Path | None,
        typer.Option(help="Write the best class of every cell as a TIFF pyramid, or --tiff-class's values."),
    ] = None,
    tiff_class: Annotated[str | None, typer.Option(help="Class of --tiff.")] = None,
    overview: Annotated[Path | None, typer.Option(help="Draw the best classes over the image, with a legend.")] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    json_: Json = False,
) -> None:
    """Compute the score map of an image of any size: the whole image's, to the digit, within a limit of memory.

    Stop it at any time, give the same command again, and it continues. What cell (i, j) stands for is written beside
    the map, in pixels of the original.

    Example: verydeep scoremap slide.tif --weights runs/A --out map.zarr --scales 1,0.5 --memory 2GiB
    --peaks peaks.csv --overview overview.png
    """
    import json

    from verydeep.inference.memory import parse_memory
    from verydeep.scoremaps.score_map import Job, Wanted
    from verydeep.training.run_folder import find_weights

    _check(peaks, tiff, overview)
    wanted = Wanted(
        scales=[_number(word, "scales") for word in scales.split(",")],
        classes=[word.strip() for word in classes.split(",")] if classes else None,
        softmax=softmax,
        region=_region(region),
        mask=mask,
        stride=stride,
    )
    job = Job(image, find_weights(weights), wanted, device, engine)
    if tiff:
        _check_class(job, tiff, tiff_class)
    plans = job.plans(parse_memory(memory))
    about = _about(job, plans)
    echo(json.dumps(about, indent=2) if json_ else _words(about))
    if dry_run:
        return
    found = job.run(plans, out, quiet=False)
    for line in _further(found, job, peaks, threshold, tiff, tiff_class, overview):
        if not json_:
            echo(line)


def _check(peaks: Path | None, tiff: Path | None, overview: Path | None) -> None:
    """Refuse wrong names before hours of work."""
    from verydeep.scoremaps import overview as drawing
    from verydeep.scoremaps.peaks import check_suffix
    from verydeep.scoremaps.rasters import check_raster

    if peaks:
        check_suffix(peaks)
    if tiff:
        check_raster(tiff, None, ())
    if overview:
        drawing.check_suffix(overview)


def _check_class(job: "Job", tiff: Path, label: str | None) -> None:
    from verydeep.scoremaps.rasters import check_raster

    check_raster(tiff, label, tuple(job.dense.classes[k] for k in job.kept))


def _number(word: str, option: str) -> float:
    from math import isfinite

    from verydeep.basics.errors import UserError

    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not (value > 0 and isfinite(value)):
        raise UserError(f"--{option}: {word!r} is no number above 0; for example 1,0.5")
    return value


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    from verydeep.basics.errors import UserError

    if text is None:
        return None
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise UserError(f"--region {text!r}: expected x,y,width,height in whole pixels") from None
    return x, y, width, height


def _about(job: "Job", plans: "tuple[Plan, ...]") -> dict[str, Any]:
    from verydeep.basics.memory import resident
    from verydeep.scoremaps.plan import seconds

    rows = []
    for scale, plan in zip(job.scales, plans, strict=True):
        rows.append(
            {
                "scale": scale,
                "image": [plan.width, plan.height],
                "map": [plan.columns, plan.rows],
                "strips": plan.strips,
                "band_rows": plan.band,
                "working_bytes": plan.working_bytes,
                "multiply_adds": plan.macs,
                "recomputed": plan.recomputed,
            }
        )
    return {
        "image": job.source.name,
        "classes": len(job.kept),
        "stride": job.dense.stride,
        "window": job.dense.window,
        "resident_bytes": resident(),
        "map_bytes": sum(4 * len(job.kept) * plan.rows * plan.columns for plan in plans),
        "seconds": seconds(job.dense, plans, job.device),
        "scales": rows,
    }


def _words(about: dict[str, Any]) -> str:
    lines = [
        f"{about['image']}: {about['classes']} classes, a window of {about['window']} pixels every {about['stride']}; "
        f"map of {about['map_bytes'] / 2**20:.1f} MiB, about {about['seconds']:.0f} s"
    ]
    for row in about["scales"]:
        strips = f"{row['strips']} strips of columns ({row['recomputed']:.1%} computed twice)"
        lines.append(
            f"scale {row['scale']:g}: {row['image'][0]} x {row['image'][1]} pixels, {row['map'][0]} x {row['map'][1]} "
            f"cells, {'full width' if row['strips'] == 1 else strips}, {row['band_rows']} rows at a time, "
            f"{row['working_bytes'] / 2**20:.0f} MiB beside the {about['resident_bytes'] / 2**20:.0f} MiB held, "
            f"{row['multiply_adds']:.3g} multiply-adds"
        )
    return "\n".join(lines)


def _further(
    found: "ScoreMap",
    job: "Job",
    peaks: Path | None,
    threshold: float,
    tiff: Path | None,
    label: str | None,
    overview: Path | None,
) -> list[str]:
    """Write what is made of the map, and return what to say of it."""
    said = [str(found.path)]
    if peaks:
        from verydeep.scoremaps.peaks import find_peaks, write_peaks

        highest = find_peaks(found, threshold)
        write_peaks(highest, peaks, found)
        said.append(f"{peaks}: {len(highest)} peaks")
    if tiff:
        from verydeep.scoremaps.rasters import write_raster

        write_raster(found, tiff, label)
        said.append(str(tiff))
    if overview:
        from verydeep.scoremaps.overview import draw_overview

        draw_overview(found, job.source, overview, threshold)
        said.append(str(overview))
    return said
