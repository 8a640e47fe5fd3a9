"""`verydeep stylize`: the content of one picture in the style of another."""

from pathlib import Path
from typing import Annotated

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Memory

EXAMPLE = "verydeep stylize photo.jpg painting.jpg --weights trunk.safetensors --out new.jpg --size 256 --steps 100"


def stylize(
    content: Annotated[Path, typer.Argument(help="A picture of what is to be seen.")],
    style: Annotated[Path, typer.Argument(help="A picture that looks as it is to look.")],
    weights: Annotated[
        Path, typer.Option(help="Trunk, run, weights file of any project, or torchvision:vgg16 and the like.")
    ],
    out: Annotated[Path, typer.Option(help="The picture: .png, .jpg or .jpeg.")],
    size: Annotated[int, typer.Option(help="Its smallest side in pixels.")] = 384,
    steps: Annotated[int, typer.Option(help="Steps at each size; time is in proportion.")] = 200,
    style_weight: Annotated[float, typer.Option(help="More gives up more of the content.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the noise that it begins with.")] = 0,
    preview: Annotated[Path | None, typer.Option(help="Picture file to look at meanwhile, new at every step.")] = None,
    memory: Memory = "4GiB",
    device: Device = "auto",
) -> None:
    """Paint what is in one picture in the style of another, by its features (Gatys et al. 2016; docs/perceptual.md).

    From small to large; Ctrl-C writes what there is, at the size it has.

    Example: verydeep stylize photo.jpg painting.jpg --weights trunk.safetensors --out new.jpg --size 256 --steps 100
    """
    from contextlib import closing

    from verydeep.basics.device import pick_device
    from verydeep.basics.progress import track
    from verydeep.images.decode import BYTES_A_PIXEL
    from verydeep.images.files import check_writable, read_picture, write_picture
    from verydeep.inference.memory import parse_memory
    from verydeep.perceptual import stylize as work
    from verydeep.perceptual.trunk import describe_trunk, trunk
    from verydeep.training.run_folder import find_weights

    for path in filter(None, (out, preview)):
        check_writable(path)
    most, where = parse_memory(memory), pick_device(device)
    pictures = [read_picture(path, most // BYTES_A_PIXEL) for path in (content, style)]
    net = trunk(find_weights(weights)).to(where)
    work.check_memory(net, pictures[0], size, most)
    total = max(0, steps) * len(work.sides(size))
    latest: list[work.Picture] = []
    try:
        with closing(track(range(total), total, "painting", unit="steps")) as bar:

            def on_step(picture: work.Picture) -> None:
                latest[:] = [picture]
                next(bar, None)
                if preview:
                    write_picture(preview, picture)

            found = work.stylize(net, pictures[0], pictures[1], size, steps, style_weight, seed, on_step)
    except KeyboardInterrupt:
        for picture in latest:
            write_picture(out, picture)
            echo(f"{out}: as far as it was, {picture.shape[1]} x {picture.shape[0]} pixels", err=True)
        raise
    write_picture(out, found)
    echo(f"{out}: {found.shape[1]} x {found.shape[0]} pixels; trunk: {describe_trunk(net)}")
