"""The figures of a network for each pixel, as `verydeep evaluate --task segment` prints them."""

from pathlib import Path
from typing import TYPE_CHECKING

from verydeep.cli.console import echo

if TYPE_CHECKING:
    from verydeep.inference.runtime import Runtime


def echo_pixels(
    weights: Path, data: str, split: str, out: Path, runtime: "Runtime", limit: int | None, as_json: bool
) -> None:
    """Test a network on a data set with masks, and print metrics and each class's IoU and accuracy."""
    import json

    from verydeep.cli.errors_table import table
    from verydeep.datasets.mask_folders import open_segmented
    from verydeep.segmentation.evaluate import FILE, confusions
    from verydeep.segmentation.metrics import NAMES, class_iou, intervals

    dataset = open_segmented(data, split)
    matrices = confusions(weights, dataset, out, runtime=runtime, limit=limit)
    figures, ious = intervals(matrices)
    whole = matrices.sum(0)
    accuracies, pixels = class_iou(whole)[1], whole.sum(1)
    if as_json:
        by_class = [
            {"class": name, "iou": vars(iou), "accuracy": float(accuracy), "pixels": int(count)}
            for name, iou, accuracy, count in zip(dataset.classes, ious, accuracies, pixels, strict=True)
        ]
        about = {"data": dataset.name, "split": dataset.split, "pictures": len(matrices), "file": str(out / FILE)}
        found = {name: vars(figure) for name, figure in figures.items()}
        echo(json.dumps({**about, **found, "classes": by_class}, indent=2))
        return
    echo(f"{dataset.name}, {dataset.provenance}; {len(matrices)} pictures")
    echo(table([("metric", "per cent"), *((NAMES[name], str(figure)) for name, figure in figures.items())]))
    rows = zip(dataset.classes, ious, accuracies, pixels, strict=True)
    lines = [(name, str(iou), f"{100 * accuracy:.1f}", f"{count:,}") for name, iou, accuracy, count in rows]
    echo("\n" + table([("class", "IoU", "accuracy", "pixels"), *lines]))
    echo(f"in brackets 95 % bootstrap intervals over pictures; pixels without a label do not count\n{out / FILE}")
