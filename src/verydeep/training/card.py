"""The model card: what a network is, how good it is, how it was made."""

from collections.abc import Mapping

from verydeep.basics.files import write_text
from verydeep.basics.machine import describe_machine
from verydeep.nets.network import Network
from verydeep.training.log import best_epoch, read_log
from verydeep.training.recipe import Recipe
from verydeep.training.run_folder import RunFolder
from verydeep.training.task import BY_CLASS, Task, first_metric, shown

_CARD = """# {net} on {data}

A very deep ConvNet (configuration {net}, Simonyan & Zisserman 2014) for {answers}:
{parameters} parameters, width {width:g}, batch norm {batch_norm}, {image_size} x {image_size} input windows.

## Figures

| validation, {validated} | |
|---|---|
{metrics}

Of epoch {best_epoch}, the one with the least {chosen} of {epochs} trained; choosing it on these images makes the
figures slightly flattering. `{test}` tests it as the paper does.

## Data

{data}: {training_images} training images. {split}

## How it was made

Recipe `{recipe}`, seed {seed}, {scales}, engine {engine}, {minutes:.1f} minutes of training.

```
{command}
```

| | |
|---|---|
{machine}

`recipe.toml` beside this card holds every setting, `log.jsonl` every figure.
Preprocessing: {preprocessing}.

![training curves](curves.png)
"""


def write_card(folder: RunFolder, recipe: Recipe, net: Network, task: Task) -> None:
    """Write `card.md` into a finished run's folder, from its log and its weights' provenance."""
    epochs = read_log(folder.path, "epoch")
    best = best_epoch(epochs, first_metric(task))
    about, side = net.provenance, round(sum(recipe.images.scales) / 2)
    options = "".join(f" --{key} {value}" for key, value in task.words.items())
    command = f"verydeep train --net {about.net}{options} --data DATA --recipe {folder.recipe.name} --out RUN"
    reading = {"reader": about.reader, "on-bad-image": about.on_bad_image, "labels": about.more.get("labels")}
    command += "".join(f" --{name} {value}" for name, value in reading.items() if value)
    stored = about.more.get("boxes_as_stored")
    command += {"True": " --boxes-as-stored", "False": " --boxes-as-shown"}.get(str(stored), "")
    if about.init_from_sha256:
        command += f" --init-from INITIAL  # SHA-256 of its weights: {about.init_from_sha256[:16]}"
    text = _CARD.format(
        net=net.configuration.name,
        data=about.data,
        answers=_answers(net),
        parameters=f"{sum(parameter.numel() for parameter in net.parameters()):,}",
        width=net.width,
        batch_norm="yes" if net.batch_norm else "no",
        image_size=net.image_size,
        validated="whole pictures" if net.task == "segment" else f"one central crop at Q = {side}",
        metrics=_metrics(task, net, best),
        chosen=task.metrics[first_metric(task)],
        test=task.how_to_test(folder.weights.name, side),
        best_epoch=best["epoch"],
        epochs=len(epochs),
        training_images=about.training_images,
        split=about.split,
        recipe=recipe.name,
        seed=recipe.seed,
        scales=_scales(net, recipe),
        engine=recipe.engine,
        minutes=epochs[-1]["seconds"] / 60,
        command=command,
        machine="\n".join(f"| {key} | {value} |" for key, value in describe_machine().items()),
        preprocessing=", ".join(f"{key} {value}" for key, value in net.preprocessing.to_dict().items()),
    )
    write_text(folder.card, text)


def _scales(net: Network, recipe: Recipe) -> str:
    if net.task == "segment":
        return f"pictures' sides times {list(recipe.segmentation.factors)}"
    return f"training scales S in {list(recipe.images.scales)}"


def _answers(net: Network) -> str:
    boxes = {None: "", "scr": "one box for all of ", "pcr": "a box for each of "}[net.regression]
    if net.config.segmentation:
        return f"the class of each pixel, head {net.config.segmentation.head}, {len(net.classes)} classes"
    several = ", of which an image may have several" if net.multi_label else ""
    return f"{boxes}{len(net.classes)} classes{several}"


def _metrics(task: Task, net: Network, best: Mapping[str, float]) -> str:
    names = shown(task, len(net.classes))
    names |= {key: f"average precision, {key.removeprefix(BY_CLASS)}" for key in best if key.startswith(BY_CLASS)}
    return "\n".join(f"| {name} | {best[key]:.2%} |" for key, name in names.items())
