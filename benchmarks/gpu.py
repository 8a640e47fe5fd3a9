"""Is verydeep right on a GPU, and how fast? One command, no network, a few minutes.

PYTHONPATH=src:. python benchmarks/gpu.py [--out benchmarks/results] [--parts correctness resume inference training]

Correctness: the golden cases (tests/golden), whose values a CPU computed, computed on the GPU; and a training run that
is stopped and continued. Speed: forward passes and training steps of network D at 224 x 224 beside torchvision's and
timm's vgg16 in the same process, in turn, as a share of what a bfloat16 matrix product reaches on the same card.
"""

import argparse
import csv
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.golden import cases, comparing, product  # noqa: E402
from verydeep.basics.device import place  # noqa: E402
from verydeep.basics.machine import describe_machine  # noqa: E402
from verydeep.datasets.loader import Batch  # noqa: E402
from verydeep.nets.families import create  # noqa: E402
from verydeep.nets.geometry import macs  # noqa: E402
from verydeep.training.parallel import Processes  # noqa: E402
from verydeep.training.recipe import load_recipe  # noqa: E402
from verydeep.training.step import Stepper, make_optimizer  # noqa: E402

Row = dict[str, Any]
Step = Callable[[], object]

FORWARD, BFLOAT16, TRAINED = 1e-4, 0.02, 1e-3
GOLDEN = {
    **dict.fromkeys(
        ("posteriors", "posteriors-deep", "posteriors-options", "fused", "predictions", "heat-map"), FORWARD
    ),
    **dict.fromkeys(("descriptors", "features", "transfers", "score-maps", "boxes", "localized"), FORWARD),
    **dict.fromkeys(("train-plain", "train-literal", "train-batch-norm", "train-accumulation"), TRAINED),
    **dict.fromkeys(("train-from-shallower", "train-fine-tuning", "train-scr", "train-pcr"), TRAINED),
    **dict.fromkeys(("old-run-continued", "old-modern-run-continued"), TRAINED),
    "posteriors-bf16": BFLOAT16,
}
"""The cases that compute on a device, and how far a GPU may be from the CPU: a share of the greatest value.

Left out: dropout and what holds it (a GPU draws other masks), and what computes on the CPU everywhere.
"""


def main() -> int:
    """Run the parts; exit status 1 where something is wrong, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the CSV files")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=20, help="timed runs of each, in turn; the median counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256], help="of forward passes")
    parser.add_argument("--training-batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=224, help="of the images in pixels, at least 193")
    parser.add_argument("--golden", nargs="+", default=list(GOLDEN), choices=list(GOLDEN), help="cases to compare")
    parser.add_argument("--cpu", action="store_true", help="try the script where there is no GPU; figures mean nothing")
    words = parser.parse_args()
    if not words.cpu and not torch.cuda.is_available():
        print("gpu.py: torch sees no CUDA device here (--cpu tries the script without one)", file=sys.stderr)
        return 2
    words.device = torch.device("cpu" if words.cpu else "cuda")
    machine = {**describe_machine(), **{name: _version(name) for name in ("torchvision", "timm")}}
    print(" · ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    words.out.mkdir(parents=True, exist_ok=True)
    status = 0
    for part in words.parts:
        begun, rows = time.monotonic(), []
        for row in PARTS[part](words):
            rows.append({**row, "card": machine["accelerator"], "torch": machine["torch"]})
            print("  ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
            status |= row.get("verdict", "right") in ("wrong", "failed")
            with (words.out / f"gpu-{part}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        print(f"{part}: {time.monotonic() - begun:.0f} s", flush=True)
    return status


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -- correctness


def correctness(words: argparse.Namespace) -> Iterator[Row]:
    """Compare the golden cases' values, with the device that `--device auto` takes, with those of a CPU."""
    for name in words.golden:
        row: Row = {"case": name, "tolerance": GOLDEN[name], "difference": "", "verdict": "right", "why": ""}
        try:
            found = list(comparing.differences(comparing.read(name), cases.run(name)))
        except cases.NotHereError as error:  # a package is missing
            yield {**row, "verdict": "left out", "why": str(error)}
            continue
        except Exception as error:
            yield {**row, "verdict": "failed", "why": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        worst = max(found, key=lambda one: one.size, default=comparing.Difference("", 0.0, ""))
        wrong = worst.size > GOLDEN[name]
        why = f"{worst.place}: {worst.words}" if wrong else ""
        yield {**row, "difference": worst.size, "verdict": "wrong" if wrong else "right", "why": why}


def resume(words: argparse.Namespace) -> Iterator[Row]:
    """Train three epochs at once, again, and again stopped within the third and continued: compare the bits."""
    for precision in ("float32", "bf16"):
        with tempfile.TemporaryDirectory() as folder, cases.fresh_folder():
            cases.data()
            final = {}
            for run, stop in (("whole", None), ("again", None), ("stopped", 8)):
                settings = cases.words_of({**cases.TINY, "schedule.epochs": 3, "precision": precision})
                how = ("--net", "B", "--recipe", "modern", "--data", "data", "--out", f"{folder}/{run}", *settings)
                if stop:
                    product.train_until(stop, *how)
                product.train(*how)
                final[run] = product.final_weights(f"{folder}/{run}")
            for run in ("again", "stopped"):
                apart = max(float(np.abs(final["whole"][name] - final[run][name]).max()) for name in final[run])
                what = f"{precision}, {'trained twice' if run == 'again' else 'stopped and continued'}"
                yield {"run": what, "difference": apart, "verdict": "wrong" if apart else "right"}


# -- speed


def inference(words: argparse.Namespace) -> Iterator[Row]:
    """Time forward passes."""
    peak = bf16_peak(words.device)
    yield {"network": "matrix product 8192^3", "precision": "bf16", "batch": 1, "images_per_second": "",
           "share_of_peak": 1.0, "tflops": peak / 1e12, "peak_memory_gib": "", "difference": ""}  # fmt: skip
    for batch in words.batches:
        x = torch.rand(batch, 3, words.side, words.side, device=words.device) * 2 - 1
        for precision in ("float32", "tf32", "bf16"):
            compiled = precision == "bf16" and batch == max(words.batches)
            yield from _timed(words, peak, forward_passes(words, x, precision, compiled), batch, precision, 1)


def training(words: argparse.Namespace) -> Iterator[Row]:
    """Time training steps: forward, backward, update."""
    peak = bf16_peak(words.device)
    for precision in ("tf32", "bf16"):
        steps = training_steps(words, precision)
        yield from _timed(words, peak, steps, words.training_batch, precision, 3)


def _timed(
    words: argparse.Namespace, peak: float, ways: dict[str, Step], batch: int, precision: str, passes: int
) -> Iterator[Row]:
    """Warm each up, measuring its memory, then time all in turn."""
    memory, results = {}, {}
    for name, step in ways.items():
        gc.collect()
        with arithmetic(words.device, precision):
            step()  # compiles, chooses algorithms
            _reset_memory(words.device)
            held = _memory(words.device)
            results[name] = step()
            memory[name] = (_memory(words.device) - held) / 2**30
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(words.repeats):
        for name, step in ways.items():
            with arithmetic(words.device, precision):
                seconds[name].append(_seconds(step, words.device))
    reference = results["torchvision"]
    for name in ways:
        rate = batch / statistics.median(seconds[name])
        work = 2 * macs(create("D"), words.side, words.side) * passes * rate
        row = {"network": name, "precision": precision, "batch": batch, "images_per_second": rate}
        yield {**row, "share_of_peak": work / peak, "tflops": work / 1e12, "peak_memory_gib": memory[name],
               "difference": _apart(results[name], reference)}  # fmt: skip


def _apart(one: object, other: object) -> float:
    values = [value.float().flatten() if isinstance(value, Tensor) else torch.tensor([value]) for value in (one, other)]
    return float((values[0] - values[1]).abs().max() / values[1].abs().max())


def arithmetic(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context of a precision; float32 with or without tensor cores' ten bits of mantissa (tf32)."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def forward_passes(words: argparse.Namespace, x: Tensor, precision: str, compiled: bool) -> dict[str, Step]:
    """Return forward passes by name: the same weights in three projects' networks, in two memory layouts."""
    nets = networks(words.device)
    last = x.to(memory_format=torch.channels_last)
    ways: dict[str, Step] = {"verydeep": lambda: nets["verydeep"](last)}
    for name in ("torchvision", "timm"):
        if name in nets:
            ways[name] = lambda net=nets[name]: net(x)
            lasting = nets[f"{name} channels_last"]
            ways[f"{name} channels_last"] = lambda net=lasting: net(last)
            if compiled:
                faster = torch.compile(lasting)
                ways[f"{name} channels_last compiled"] = lambda net=faster: net(last)
    if compiled:
        ours = torch.compile(nets["verydeep"])
        ways["verydeep compiled"] = lambda: ours(last)
    return {name: torch.inference_mode()(way) for name, way in ways.items()}


def training_steps(words: argparse.Namespace, precision: str) -> dict[str, Step]:
    """Return training steps by name, on bytes that lie in the host's pinned memory, as a loader gives them."""
    count = words.training_batch
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, words.side, words.side, 3), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 1000, (count,), generator=rng)
    if words.device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    nets = networks(words.device, dropout=0.0)
    settings = [f"optimizer.batch_size={count}", "optimizer.learning_rate=1e-9", "optimizer.accumulation=1"]
    recipe = load_recipe("paper-s256", [*settings, f"precision={'bf16' if precision == 'bf16' else 'float32'}"])
    batch = Batch(images, labels, torch.arange(count), torch.zeros(count, 3), torch.empty(count, 0))
    ways: dict[str, Step] = {}
    for name in ("verydeep", *(["verydeep compiled"] if precision == "bf16" else [])):
        net = nets["verydeep"]
        stepper = Stepper(net, make_optimizer(net, recipe.optimizer), recipe, Processes(), name != "verydeep")
        ways[name] = lambda stepper=stepper: stepper(batch, 0, 0, 1.0).loss.detach()
    for name in ("torchvision", "torchvision channels_last", "timm channels_last"):
        if name in nets:
            ways[name] = _usual_step(nets[name], nets[name], images, labels)
    if "torchvision" in nets and precision == "bf16":
        net = nets["torchvision channels_last"]
        ways["torchvision channels_last compiled"] = _usual_step(torch.compile(net), net, images, labels)
    return ways


def _usual_step(forward: Any, net: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """Return a training step as torch's examples write it, with torch's fastest optimizer."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9, momentum=0.9, weight_decay=5e-4, fused=True)
    device = next(net.parameters()).device
    mean = torch.tensor([123.68, 116.779, 103.939], device=device)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        x = (images.to(device, non_blocking=True).float() - mean).permute(0, 3, 1, 2)
        if not net.features[0].weight.is_contiguous():  # type: ignore[index, union-attr]
            x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = x.contiguous()
        loss = nn.functional.cross_entropy(forward(x).float(), labels.to(device, non_blocking=True))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def networks(device: torch.device, dropout: float = 0.5) -> dict[str, nn.Module]:
    """Return network D of each project that is installed, all with the same weights."""
    ours = create("D", initialization="he", seed=0, dropout=dropout).eval()
    values = list(ours.state_dict().values())
    nets: dict[str, nn.Module] = {}
    for layout in ("", " channels_last"):
        for name, make in (("torchvision", _torchvision), ("timm", _timm)):
            try:
                net = make(dropout).eval()
            except ImportError:
                continue
            own = net.state_dict()
            net.load_state_dict({key: value.reshape(own[key].shape) for key, value in zip(own, values, strict=True)})
            nets[name + layout] = net.to(device, memory_format=torch.channels_last if layout else None)
    place(ours, device)
    return {"verydeep": ours, **nets}


def _torchvision(dropout: float) -> nn.Module:
    from torchvision.models import vgg16

    net: nn.Module = vgg16(dropout=dropout)
    return net


def _timm(dropout: float) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model("vgg16", drop_rate=dropout)
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout  # of the head's own 0.5
    return net


def bf16_peak(device: torch.device) -> float:
    """Return the operations a second of a bfloat16 matrix product, 8192^3: the best of ten."""
    side = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * side**3 / min(_seconds(lambda: a @ b, device) for _ in range(10))


def _seconds(step: Step, device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "correctness": correctness,
    "resume": resume,
    "inference": inference,
    "training": training,
}

if __name__ == "__main__":
    raise SystemExit(main())
