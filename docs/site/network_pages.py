"""A page for each network, all alike; whatever is a number on it the code printed while the site was built."""

import json
import re

from typer.testing import CliRunner

from verydeep.checkpoints.public import PUBLISHED, TIMM
from verydeep.cli.main import app
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.nets.configurations import CONFIGURATIONS, NAMES
from verydeep.results.published import rows

ERRORS = {"3": "one scale, dense", "4": "several scales, dense", "5": "several scales"}
"""The paper's tables of single networks, and how each tests."""

PAGE = """# {title}

{what}

| window | stride | least image | parameters | multiply-adds |
|---|---|---|---|---|
| {window} | {stride} | {least} | {parameters:,} | {macs:.2f} G |

For 1,000 classes, at {window} x {window} pixels.

## Use

```python
import verydeep as vd

net = vd.create("{name}", classes=1000)
net.score_map(x)  # N x 1000 x h x w, from {least} pixels on
vd.predict("{run}/best.safetensors", "new.jpg")
```

## Train

```sh
{train}
```

`IMAGENET` is a folder in one of ILSVRC-2012's layouts, `photos` one folder of pictures a class.{order}

## Test

```sh
{test}
```

## Table

{table}

## Weights

{weights}

## Layers

```console
$ verydeep describe {name}
{layers}
```
"""


def pages() -> dict[str, str]:
    """Return the pages by their names."""
    made = {f"networks/{name}.md": _page(name) for name in NAMES}
    return {"networks/index.md": _overview(), **made}


def _page(name: str) -> str:
    values = json.loads(_said("describe", name, "--json"))
    known = _least(name)
    own = name in CONFIGURATIONS
    run = f"runs/{name}"
    return PAGE.format(
        title=f"Network {name}" if own else name,
        name=name,
        what=_what(name, values["weight_layers"]),
        window=values["window"],
        stride=values["stride"],
        least=known,
        parameters=values["parameters"],
        macs=values["macs"] / 1e9,
        run=run,
        order=" Deeper networks start from A (section 3.1)." if own and name != "A" else "",
        train=_train(name, values["image_size"][0]),
        test=_test(name, run),
        table=_table(name),
        weights=_weights(name),
        layers=_said("describe", name).rstrip(),
    )


def _what(name: str, depth: int) -> str:
    if name in ARCHITECTURES:
        return (
            f"{depth} weight layers, from {ARCHITECTURES[name].source}: one of the "
            "[networks that the paper compares with](../networks.md)."
        )
    configuration = CONFIGURATIONS[name]
    kernels = sorted({conv.kernel for block in configuration.blocks for conv in block})
    sides = " and ".join(f"{kernel}x{kernel}" for kernel in kernels)
    lrn = ", with local response normalization behind the first convolution" if configuration.lrn else ""
    return f"{depth} weight layers, convolutions of {sides}{lrn} (the [paper](../paper.md)'s Table 1, section 2)."


def _train(name: str, side: int) -> str:
    size = "" if name in CONFIGURATIONS else f" \\\n    --set network.image_size={side}"
    paper = f"verydeep train --net {name} --data IMAGENET --recipe paper-s256 --out runs/{name}{size}"
    if name in CONFIGURATIONS and name != "A":
        paper = f"verydeep train --net A --data IMAGENET --recipe paper-s256 --out runs/A\n{paper} --init-from runs/A"
    small = f"verydeep train --net {name} --data photos --recipe small-modern --out runs/{name}-photos"
    return f"{paper}\n{small}"


def _test(name: str, run: str) -> str:
    protocols = ["dense@256", "dense@224,256,288", "dense+crops@224,256,288"]
    if name in ARCHITECTURES:
        protocols = ["dense@256", "ten-crops@256", "square-crops@256,288,320,352"]
    words = " ".join(f"--protocol {protocol}" for protocol in protocols)
    return f"verydeep evaluate {run} --data IMAGENET --out posteriors/{name} \\\n    {words}"


def _table(name: str) -> str:
    found = []
    for number, row in rows(*ERRORS):
        if len(row.members) == 1 and row.members[0].configuration == name:
            (member,) = row.members
            least, most = member.train
            trained = str(least) if least == most else f"{least} to {most}"
            method = row.method if number == "5" else ERRORS[number]
            tested = ", ".join(map(str, member.test))
            found.append(
                f"| {number} | {trained} | {tested} | {method} | {row.metrics['top1']} | {row.metrics['top5']} |"
            )
    if not found:
        return "The paper's tables have no row of it; `verydeep tables` prints one for networks that you train."
    head = "| table | S | Q | test | top-1 | top-5 |\n|---|---|---|---|---|---|\n"
    after = (
        "The paper's errors in %, on ILSVRC-2012's validation set. `verydeep tables STUDY` prints yours beside them."
    )
    return head + "\n".join(found) + f"\n\n{after}"


def _weights(name: str) -> str:
    public = [one for one in (*PUBLISHED, *TIMM) if _configuration(one) == name]
    if not public:
        return "None are published that `verydeep` knows by name; files of other projects: [weights](../weights.md)."
    example = next((one for one in public if one.startswith("caffe:")), public[0])
    command = f"```sh\nverydeep convert {example} {name.lower()}.safetensors\n```"
    names = ", ".join(f"`{one}`" for one in public)
    return f"{names}: downloaded once and checked ([weights](../weights.md)).\n\n{command}"


def _configuration(public: str) -> str | None:
    """Return the letter of the plain network that has as many layers as a public name says."""
    depth = re.search(r"vgg(\d+)", public)
    for name, configuration in CONFIGURATIONS.items():
        plain = all(conv.kernel == 3 for block in configuration.blocks for conv in block) and not configuration.lrn
        if depth and plain and configuration.weight_layers == int(depth[1]):
            return name
    return None


def _overview() -> str:
    lines = []
    for name in NAMES:
        values = json.loads(_said("describe", name, "--json"))
        cells = (
            values["weight_layers"],
            values["window"],
            f"{values['parameters']:,}",
            f"{values['macs'] / 1e9:.2f} G",
        )
        lines.append(f"| [{name}]({name}.md) | {' | '.join(map(str, cells))} |")
    head = "| network | weight layers | window | parameters | multiply-adds |\n|---|---|---|---|---|\n"
    text = "The paper's seven, and six [that it compares with](../networks.md). A page each, all alike.\n\n"
    return f"# Networks\n\n{text}{head}" + "\n".join(lines) + "\n\nFor 1,000 classes, at the window's size.\n"


def _least(name: str) -> int:
    from verydeep.nets.families import default_config, make_on_meta

    return make_on_meta(default_config(name, [str(number) for number in range(1000)])).least_size


def _said(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    if done.exit_code:
        raise RuntimeError(f"verydeep {' '.join(words)}: {done.output}")
    return done.stdout
