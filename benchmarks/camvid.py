"""Networks for each pixel on CamVid: 32s, 16s, 8s from a trunk, and 8s from random weights.

    python -m benchmarks.camvid --data camvid.tar --trunk trunk.safetensors --out camvid

Trains on `train`, chooses epochs on `val`, reports `test`. What is there is not done again. The trunk is made of any
file with the authors' convolutions: `verydeep convert VGG16.onnx trunk.safetensors --trunk --like keras`.
"""

import argparse
import json
from pathlib import Path

from verydeep.basics.files import write_text
from verydeep.datasets.mask_folders import open_segmented
from verydeep.nets.config import SegmentationHead
from verydeep.segmentation.evaluate import confusions
from verydeep.segmentation.metrics import NAMES, intervals
from verydeep.segmentation.task import Segmentation
from verydeep.training.train import train

PUBLISHED = "FCN-8s, published for these 11 classes: mean IoU 57.0"
COMMON = ("network.dropout=0.1", "network.image_size=96", "network.fc_width=512")
FROM_TRUNK = (
    "optimizer.layer_learning_rates.conv=0.1",
    *(f"optimizer.layer_learning_rates.conv{block}=0" for block in (1, 2, 3)),
)
FROM_NOTHING = ("network.width=1.0", "network.batch_norm=true", "images.divide_by_std=true")
RUNS: dict[str, tuple[SegmentationHead, bool]] = {
    "32s": ("32s", True),
    "16s": ("16s", True),
    "8s": ("8s", True),
    "8s-random": ("8s", False),
}
"""Head, and whether it starts from the trunk."""


def main() -> None:
    """Do what is left of the study, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--trunk", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--factors", type=float, nargs=2, default=(0.8, 1.25), help="on the sides of training views")
    parser.add_argument("--crop", type=int, nargs=2, default=(224, 288))
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    size = (
        f"schedule.epochs={given.epochs}",
        f"segmentation.factors={list(given.factors)}",
        f"segmentation.crop={list(given.crop)}",
    )
    rows = []
    for name in given.runs:
        head, from_trunk = RUNS[name]
        result = train(
            "D",
            given.data,
            "small-segment",
            given.out / name,
            task=Segmentation(head),
            init_from=given.trunk if from_trunk else None,
            overrides=[*COMMON, *size, *(FROM_TRUNK if from_trunk else FROM_NOTHING)],
        )
        dataset = open_segmented(given.data, "test")
        figures, _ = intervals(confusions(result.weights, dataset, given.out / name / "test"))
        rows.append({"run": name, **{key: vars(figure) for key, figure in figures.items()}})
        print(name, *(f"{NAMES[key]} {figure}" for key, figure in figures.items()), sep="  ", flush=True)
    write_text(given.out / "table.json", json.dumps({"published": PUBLISHED, "rows": rows}, indent=1))
    print(PUBLISHED)


if __name__ == "__main__":
    main()
