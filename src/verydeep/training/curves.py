"""Training curves as a picture."""

from pathlib import Path

from verydeep.basics.files import write_aside
from verydeep.training.log import read_log
from verydeep.training.task import Task


def draw_curves(folder: Path, task: Task) -> None:
    """Draw loss, metrics and learning rate of a run's log into `curves.png`."""
    from matplotlib.figure import Figure

    epochs = read_log(folder, "epoch")
    x = [line["epoch"] for line in epochs]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    loss.plot(x, [line["train_loss"] for line in epochs], label="training")
    loss.plot(x, [line["val_loss"] for line in epochs], label="validation")
    loss.set_ylabel(task.loss_name)
    error.plot(x, [100 * line["train_error"] for line in epochs], label="training error")
    for key, name in task.metrics.items():
        error.plot(x, [100 * line[key] for line in epochs], label=f"validation, {name}")
    error.set_ylabel("%")
    error.set_ylim(0, 100)
    rate.plot(x, [line["learning_rate"] for line in epochs], color="gray")
    rate.set_ylabel("learning rate")
    if min(line["learning_rate"] for line in epochs) > 0:
        rate.set_yscale("log")
    for axes in (loss, error, rate):
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    loss.legend(frameon=False)
    error.legend(frameon=False)
    with write_aside(folder / "curves.png") as aside:
        figure.savefig(aside, dpi=120)
