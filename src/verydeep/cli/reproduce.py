"""`verydeep reproduce`: a whole study, from nothing to its report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import BoxesAsStored, Device, Json, OnBadImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verydeep.results.plan import Plan
    from verydeep.results.report import HitCheck
    from verydeep.results.verify import Claim

EXAMPLE = "verydeep reproduce --preset demo --data scenes --out demo --dry-run"
EXAMPLE_PUBLISHED = "verydeep reproduce --preset published --data IMAGENET_VAL --weights-d D --weights-e E"


def reproduce(
    preset: Annotated[str, typer.Option(help="demo, small, paper or published, or a .toml file.")],
    data: Annotated[
        str | None, typer.Option(help="Data set: a folder, .tar, .zip or .tar.gz, or 'scenes' (embedded).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study; a stopped one is continued.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost, do nothing.")] = False,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="With --dry-run: estimate the time on so many GPUs, by a model.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="Their kind: a100, h100, h200 or b200.")] = "h100",
    only: Annotated[
        list[str] | None, typer.Option(help="A run to do, with those it starts from; may be given several times.")
    ] = None,
    weights_d: Annotated[str | None, typer.Option(help="D of [256;512], for --preset published.")] = None,
    weights_e: Annotated[str | None, typer.Option(help="E of [256;512], for --preset published.")] = None,
    device: Device = "auto",
    on_bad_image: OnBadImage = "error",
    boxes_as_stored: BoxesAsStored = None,
    json_: Json = False,
) -> None:
    """Train and test the networks of a preset, fill the paper's Tables 3 to 6, 8 and 9, write a report.

    What the folder already has is not done again. Exit status 1 where a preset expects of a localizer how many objects
    it finds, and it finds fewer. Without --data, --dry-run counts with the preset's own figures.
    The preset published trains nothing: it tests given weights of D and E as Tables 3 to 6 do and compares with the
    paper's figures; exit status 1 where one is missed by more than 0.3 points.

    Example: verydeep reproduce --preset demo --data scenes --out demo --dry-run

    Example: verydeep reproduce --preset published --data IMAGENET_VAL --weights-d D --weights-e E
    """
    import json

    from verydeep.basics.errors import UserError
    from verydeep.datasets.opening import Reading
    from verydeep.results import reproduce as study
    from verydeep.results import scaling, verify
    from verydeep.results.plan import plan_study
    from verydeep.results.study import PUBLISHED
    from verydeep.results.table import render

    if preset == PUBLISHED:
        if boxes_as_stored is not None:
            raise UserError(
                f"--boxes-as-stored and --boxes-as-shown: preset {PUBLISHED} looks at no boxes; leave them out"
            )
        source, weights = verify.check_request(data, weights_d, weights_e, only)
        _verify(source, weights, out or Path(PUBLISHED), device, on_bad_image, dry_run, json_)
        return
    if weights_d or weights_e:
        raise UserError(
            f"--weights-d and --weights-e are for --preset {PUBLISHED}; preset {preset} trains its networks"
        )
    if not dry_run and (data is None or out is None):
        raise UserError("reproduce needs --data (a folder, a .tar or scenes) and --out; only --dry-run does without")
    if gpus and not dry_run:
        raise UserError(
            "--gpus says how long so many would take: add --dry-run (to train on several, see docs/many-machines.md)"
        )
    reading = Reading(on_bad_image=on_bad_image, boxes_as_stored=boxes_as_stored)
    plan = plan_study(preset, data, out, only=only or (), device=device, reading=reading)
    if dry_run or not json_:
        echo(json.dumps({**_values(plan), **_on_gpus(plan, gpus, gpu)}, indent=2) if json_ else _words(plan))
    if dry_run:
        if gpus and not json_:
            echo("\n" + "\n".join(scaling.words(plan, gpus, gpu)))
        return
    assert data is not None
    assert out is not None
    outcome = study.reproduce(preset, data, out, only=only or (), device=device, reading=reading)
    if json_:
        tables = [value for table in outcome.tables for value in table.values()]
        checks = [{**vars(check), "passed": check.passed} for check in outcome.checks]
        values = {**_values(plan), "tables": tables, "report": str(outcome.report), "checks": checks}
        echo(json.dumps(values, indent=2))
    else:
        lines = ["", render(outcome.tables), *map(_check, outcome.checks), f"report: {outcome.report.resolve()}"]
        echo("\n\n".join(lines))
    if not all(check.passed for check in outcome.checks):
        raise typer.Exit(1)


def _check(check: "HitCheck") -> str:
    return (
        f"{check.run} by {check.protocol} finds the object (IoU of at least 0.5, given the class) in {check.hits:.1%} "
        f"of {check.images:,} images, the best constant box in {check.constant:.1%}; expected at least "
        f"{check.least:.0%}: {'pass' if check.passed else 'MISSED'}"
    )


def _verify(
    data: str,
    weights: dict[str, str],
    out: Path,
    device: str,
    on_bad_image: Literal["error", "skip"],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do the preset published: print what is tested, then the paper's figures beside the measured ones."""
    import json

    from verydeep.results.study import PUBLISHED
    from verydeep.results.verify import Verification

    work = Verification(data, weights, out, device=device, on_bad_image=on_bad_image)
    name, images, protocols = work.dataset.name, len(work.dataset), [str(protocol) for protocol in work.protocols]
    macs = work.multiply_adds()
    if not as_json:
        echo(f"D and E on {images:,} images of {name}, by {' '.join(protocols)}: {_count(macs)} multiply-adds")
    claims = [] if dry_run else work.run()
    if as_json:
        about = {"preset": PUBLISHED, "data": name, "images": images, "protocols": protocols, "multiply_adds": macs}
        results = [_claim_values(claim) for claim in claims]
        echo(json.dumps({**about, "results": results, "note": work.note}, indent=2))
    else:
        echo("\n".join(filter(None, [_claims(claims) if claims else "", work.note])))
    if not all(claim.passed for claim in claims):
        raise typer.Exit(1)


def _claim_values(claim: "Claim") -> dict[str, Any]:
    """Return errors in %."""
    measured = {f"{key}_error": 100 * rate.rate for key, rate in claim.measured.items()}
    return {
        "table": claim.table,
        "networks": list(claim.networks),
        "protocol": str(claim.protocol),
        "published": {"top1_error": claim.top1, "top5_error": claim.top5},
        "measured": {"top1_error": None, "top5_error": None, **measured},
        "passed": claim.passed,
    }


def _claims(claims: "Sequence[Claim]") -> str:
    from verydeep.basics.formatting import align
    from verydeep.cli.errors_table import NOTE
    from verydeep.results.verify import WITHIN

    head = ("table", "network", "protocol", "top-1", "published", "difference", "top-5", "published", "difference", "")
    rows: list[tuple[str, ...]] = [head]
    for claim in claims:
        about = claim.table, " + ".join(claim.networks), str(claim.protocol)
        top1, top5 = (f"{difference:+.2f}" for difference in claim.differences)
        first = str(claim.measured["top1"]), f"{claim.top1:.1f}", top1
        five = str(claim.measured.get("top5", "-")), f"{claim.top5:.1f}", top5
        rows.append((*about, *first, *five, "pass" if claim.passed else "MISSED"))
    passed = sum(claim.passed for claim in claims)
    return f"{align(rows)}\n{passed} of {len(claims)} within {WITHIN} points; {NOTE}"


def _values(plan: "Plan") -> dict[str, Any]:
    """Return the plan as JSON-able values; times in seconds."""
    runs = [
        {
            "name": run.name,
            "configuration": run.configuration,
            "task": "localize" if run.regression else "classify",
            "recipe": run.recipe.name,
            "train_scales": list(run.recipe.images.scales),
            "init_from": run.init_from,
            "epochs": run.recipe.schedule.epochs,
            "protocols": [str(protocol) for protocol in run.protocols],
            "training_macs": left.training,
            "testing_macs": left.testing,
            "estimated_seconds": left.total / plan.speed,
        }
        for run, left in zip(plan.runs, plan.costs, strict=True)
    ]
    return {
        "preset": plan.preset.name,
        "data": plan.data.model_dump(),
        "macs_per_second": plan.speed,
        "runs": runs,
        "left_out": list(plan.left_out),
        "estimated_seconds": plan.seconds,
    }


def _on_gpus(plan: "Plan", gpus: int | None, name: str) -> dict[str, Any]:
    from verydeep.results import scaling

    if not gpus:
        return {}
    found = scaling.estimate(plan, gpus, scaling.gpu_named(name))
    seconds = dict(zip(("data_parallel", "split_fc"), found.seconds, strict=True))
    return {"on_gpus": {"gpus": gpus, "gpu": name, "seconds": seconds, "dollars": found.dollars}}


def _words(plan: "Plan") -> str:
    from verydeep.basics.formatting import align

    rows: list[tuple[str, ...]] = [("run", "starts from", "recipe", "training", "testing", "time", "tested by")]
    for run, left in zip(plan.runs, plan.costs, strict=True):
        rows.append(
            (
                run.name,
                run.init_from or "random weights",
                run.recipe.name,
                _count(left.training),
                _count(left.testing),
                _time(left.total / plan.speed) if left.total else "done",
                " ".join(str(protocol) for protocol in run.protocols),
            )
        )
    data = plan.data
    lines = [f"{plan.preset.title} ({plan.preset.name})", align(rows)]
    lines += [
        f"{len(plan.runs)} runs. Training and testing in multiply-adds still to do, for {data.training_images:,} "
        f"training and {data.test_images:,} test images of {data.name}, and each recipe's greatest number of epochs.",
        f"Estimate: {_time(plan.seconds)} at {plan.speed / 1e9:,.0f} G multiply-adds a second, measured for a second "
        "here just now.",
    ]
    if plan.left_out:
        lines.append(f"Left out, because images of {data.name} have no boxes: {', '.join(plan.left_out)}.")
    return "\n".join(lines)


def _count(macs: int) -> str:
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G")):
        if macs >= 10**power:
            return f"{macs / 10**power:.3g} {prefix}"
    return f"{macs / 1e6:.3g} M" if macs else "-"


def _time(seconds: float) -> str:
    for length, unit in ((365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.0f} s"
