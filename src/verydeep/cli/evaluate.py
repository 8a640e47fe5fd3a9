"""`verydeep evaluate`: test a network, write its posteriors."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from verydeep.cli.engine_option import EngineOption

EXAMPLE = "verydeep evaluate runs/A --data scenes --protocol dense@64 --out posteriors/A"


def evaluate(
    weights: Annotated[Path, typer.Argument(help="Weights file, or the folder of a run.")],
    data: Annotated[str, typer.Option(help="Data set: a folder, a .tar, or 'scenes' (embedded).")],
    protocol: Annotated[
        list[str],
        typer.Option(help="center@Q, dense@Q,..., crops@Q,... or dense+crops@Q,...; may be given several times."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for <protocol>.parquet; what is there is not done again.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which images.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, evenly over the classes.")] = None,
    softmax: Annotated[
        Literal["image", "location"], typer.Option(help="Soft-max of the mean score, or at each location.")
    ] = "image",
    pool: Annotated[Literal["mean", "max"], typer.Option(help="Spatial pooling of the scores.")] = "mean",
    pool_rounding: Annotated[
        Literal["up", "down"] | None, typer.Option(help="Rounding of the max-pools' sizes; default: the network's.")
    ] = None,
    precision: Annotated[Literal["float32", "bf16"], typer.Option(help="Of the network's arithmetic.")] = "float32",
    memory: Annotated[str, typer.Option(help="For pictures and activations, beside the weights.")] = "2GiB",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    engine: EngineOption = "auto",
    reader: Annotated[str | None, typer.Option(help="Layout of the data set, instead of detecting it.")] = None,
    on_bad_image: Annotated[Literal["error", "skip"], typer.Option(help="What a damaged image does.")] = "error",
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Test a network by one or several protocols; write posteriors, print errors.

    A protocol that is the mean of others (several scales, dense+crops) writes theirs too. Images held out for a
    missing split are those that this network was not trained on.

    Example: verydeep evaluate runs/A --data scenes --protocol dense@64 --out posteriors/A
    """
    import json

    from verydeep.cli.errors_table import HEAD, NOTE, cells, table, values
    from verydeep.datasets import open_dataset
    from verydeep.evaluation.evaluate import Evaluator
    from verydeep.evaluation.memory import parse_memory
    from verydeep.evaluation.options import Options
    from verydeep.evaluation.protocol import Protocol
    from verydeep.training.run_folder import find_weights

    options, memory_bytes = Options(softmax, pool, pool_rounding, precision), parse_memory(memory)
    protocols = [Protocol.parse(text) for text in protocol]
    file = find_weights(weights)
    dataset = open_dataset(data, split, reader=reader, on_bad_image=on_bad_image)
    for bad in dataset.bad:
        typer.echo(f"left out: {bad}", err=True)
    evaluator = Evaluator(
        file, dataset, options=options, memory=memory_bytes, device=device, engine=engine, limit=limit, cache=out
    )
    for name in protocols:
        evaluator.check(name)  # all of them before the first is run
    results = {str(name): evaluator.posteriors(name) for name in protocols}
    if json_:
        rows = [
            {"protocol": name, **values(result), "file": str(evaluator.path(name))} for name, result in results.items()
        ]
        typer.echo(json.dumps({"data": dataset.name, "split": split, "results": rows}, indent=2))
        return
    lines = [(name, *cells(result), str(evaluator.path(name))) for name, result in results.items()]
    typer.echo(f"{dataset.name}, {dataset.provenance or f'{split}: as published'}")
    typer.echo(table([("protocol", *HEAD, "file"), *lines]))
    typer.echo(NOTE)
