"""`verydeep features`: descriptors of pictures as a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import (
    Device,
    Engine,
    Json,
    Labels,
    Memory,
    OnBadImage,
    PartOf,
    Precision,
    Reader,
    parse_scales,
)

if TYPE_CHECKING:
    from verydeep.datasets.dataset import Dataset
    from verydeep.datasets.opening import Reading

EXAMPLE = "verydeep features photos --weights runs/A --scales 64,96 --out features.parquet"


def features(
    images: Annotated[list[Path], typer.Argument(help="Pictures, folders of them, or one data set.")],
    weights: Annotated[
        list[Path],
        typer.Option(help="Run, weights file, or caffe:vgg16 and the like; of several, descriptors are stacked."),
    ],
    out: Annotated[Path, typer.Option(help="File to write, .parquet or .npy (with a .json beside it).")],
    layer: Annotated[
        str | None,
        typer.Option(
            help="conv1_1, conv1_1.relu, ..., pool5, ..., fc7.relu, fc8; default: fc7.relu, of a trunk its last ReLU."
        ),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Q,... in pixels; default: 256,384,512 for windows of 224, others in proportion.")
    ] = None,
    aggregate: Annotated[Literal["mean", "stack", "max"], typer.Option(help="Over the scales.")] = "mean",
    flip: Annotated[bool, typer.Option(help="Average over the mirror image, too.")] = True,
    normalize: Annotated[
        Literal["l2", "l2-scales", "l2-whole", "none"],
        typer.Option(help="To unit norm: each network's descriptor, each scale's, the whole, or none."),
    ] = "l2",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the file.")] = "float32",
    cache: Annotated[Path | None, typer.Option(help="Folder for descriptors; default: the user's cache.")] = None,
    memory: Memory = "1GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "float32",
    reader: Reader = None,
    labels: Labels = None,
    on_bad_image: OnBadImage = "error",
    part: PartOf = None,
    json_: Json = False,
) -> None:
    """Write the descriptors of pictures: a layer's map at several scales, averaged over places and mirror images.

    The same command continues one that was stopped, and pictures that were described before, by the same weights and
    settings, are not described again. A data set's labels and splits are written, too.

    Example: verydeep features photos --weights runs/A --scales 64,96 --out features.parquet
    """
    import json
    from dataclasses import asdict

    from verydeep.datasets.opening import Reading
    from verydeep.inference.parts import Part
    from verydeep.transfer.descriptor import Descriptor
    from verydeep.transfer.features import describe_part, write_features
    from verydeep.transfer.protocols import PROTOCOLS
    from verydeep.transfer.store import Store, default_folder

    where: dict[str, Any] = {"memory": memory, "device": device, "engine": engine, "precision": precision}
    describe = Descriptor(list(weights), layer, (), aggregate, flip, normalize, **where)
    window = describe.sources()[0].net.image_size
    describe.scales = parse_scales(scales) if scales else PROTOCOLS["folder"].scales_for(window)
    describe.fit()
    pictures, splits = _pictures(images, Reading(reader, on_bad_image, labels=labels))
    for bad in pictures.bad:
        echo(f"left out: {bad}", err=True)
    store = Store(cache or default_folder())
    if part:
        some = describe_part(describe, pictures, Part.parse(part), store)
        echo(f"part {part}: {some} of {len(pictures)} pictures; without --part {out} is written")
        return
    written = write_features(describe, pictures, splits, out, store, dtype)
    if json_:
        echo(json.dumps({"file": str(out), **asdict(written)}))
    else:
        known = f"{written.computed} passes through a network" if written.computed else "nothing had to be computed"
        echo(f"{written.rows} pictures, {written.width} numbers each ({known})\n{out}")


def _pictures(images: list[Path], reading: "Reading") -> "tuple[Dataset, list[str]]":
    """Return one data set, and the split of each of its images; or the pictures named, without labels and splits."""
    from verydeep.basics.errors import BadImageError
    from verydeep.datasets.checking import decode_all
    from verydeep.images.files import find_pictures
    from verydeep.transfer.data import paths, read_all

    if len(images) == 1 and (reading.reader or _is_data_set(images[0])):
        dataset, own = read_all(str(images[0]), reading)
        return dataset, [name for name, indices in own.items() for _ in indices]
    files = paths(find_pictures(images))
    if reading.on_bad_image == "skip":
        results = list(decode_all(files))
        bad = tuple(result for result in results if isinstance(result, BadImageError))
        files = files.subset(i for i, result in enumerate(results) if not isinstance(result, BadImageError))
        files.bad = bad
    return files, [""] * len(files)


def _is_data_set(path: Path) -> bool:
    """Say whether a path is a data set: `scenes`, a tar, or a folder with pictures in subfolders alone."""
    if path.is_dir():
        return any(entry.is_dir() for entry in path.iterdir()) and not any(entry.is_file() for entry in path.iterdir())
    return str(path) == "scenes" or path.suffix in (".tar", ".zip", ".tgz", ".gz")
