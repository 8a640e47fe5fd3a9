"""The model card: what a network is, how good it is, how it was made."""

from verydeep.basics.files import write_text
from verydeep.basics.machine import describe_machine
from verydeep.nets.network import VGG
from verydeep.training.log import read_log
from verydeep.training.recipe import Recipe
from verydeep.training.run_folder import RunFolder

_CARD = """# {net} on {data}

A very deep ConvNet (configuration {net}, Simonyan & Zisserman 2014) for {classes} classes:
{parameters} parameters, width {width:g}, batch norm {batch_norm}, {image_size} x {image_size} input windows.

## Figures

| validation, one central crop at Q = {side} | error |
|---|---|
| top-1 | {top1:.2%} |
| top-5 | {top5} |

Of epoch {best_epoch}, the one with the least top-1 error of {epochs} trained; choosing it on these images makes the
figures slightly flattering. `verydeep evaluate {weights} --data DATA --protocol dense@{side}` tests it as the paper
does.

## Data

{data}: {training_images} training images. {split}

## How it was made

Recipe `{recipe}`, seed {seed}, training scales S in {scales}, {minutes:.1f} minutes of training.

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


def write_card(folder: RunFolder, recipe: Recipe, net: VGG) -> None:
    """Write `card.md` into a finished run's folder.

    Parameters
    ----------
    folder : RunFolder
        The run's folder, with log and weights.
    recipe : Recipe
        Its recipe.
    net : VGG
        The trained network.
    """
    epochs = read_log(folder.path, "epoch")
    best = min(epochs, key=lambda line: float(line["top1_error"]))
    words = net.provenance
    command = f"verydeep train --net {words['net']} --data DATA --recipe {folder.recipe.name} --out RUN"
    command += "".join(f" --{key.replace('_', '-')} {words[key]}" for key in ("reader", "on_bad_image") if key in words)
    if "init_from" in words:
        command += " --init-from INITIAL  # SHA-256 of its weights: " + words["init_from_sha256"][:16]
    text = _CARD.format(
        net=net.configuration.name,
        data=words["data"],
        classes=len(net.classes),
        parameters=f"{sum(parameter.numel() for parameter in net.parameters()):,}",
        width=net.width,
        batch_norm="yes" if net.batch_norm else "no",
        image_size=net.image_size,
        side=round(sum(recipe.images.scales) / 2),
        top1=best["top1_error"],
        top5=f"{best['top5_error']:.2%}" if len(net.classes) > 5 else f"- ({len(net.classes)} classes)",
        best_epoch=best["epoch"],
        epochs=len(epochs),
        weights=folder.weights.name,
        training_images=words["training_images"],
        split=words["split"],
        recipe=recipe.name,
        seed=recipe.seed,
        scales=list(recipe.images.scales),
        minutes=epochs[-1]["seconds"] / 60,
        command=command,
        machine="\n".join(f"| {key} | {value} |" for key, value in describe_machine().items()),
        preprocessing=", ".join(f"{key} {value}" for key, value in net.preprocessing.to_dict().items()),
    )
    write_text(folder.card, text)
