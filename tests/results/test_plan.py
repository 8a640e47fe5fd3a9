"""Presets and plans: the runs of the paper in an order that can be done, and their cost against counts by hand."""

import re

import pytest
import torch

from verydeep.basics.errors import UserError
from verydeep.inference.protocol import Protocol
from verydeep.nets.geometry import macs
from verydeep.nets.vgg import VGG
from verydeep.results import published
from verydeep.results.plan import cost, empty_network, measure_data, measure_speed
from verydeep.results.study import PRESETS, Data, Run, known_presets, load_preset, make_plan
from verydeep.training.recipe import load_recipe


def test_the_three_presets_are_there_and_say_how_to_run_them() -> None:
    assert known_presets() == ["demo", "paper", "small"]
    for name in known_presets():
        assert f"--preset {name}" in (PRESETS / f"{name}.toml").read_text()
        assert load_preset(name).name == name


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean small") as raised:
        load_preset("smal")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "A"', 'name = "B"', "the first is A"),
        ('"large", "jitter"', '"large", "modern"', r"which \[stages\] does not define"),
        ('stages = ["small", "jitter"]', 'stages = ["jitter"]', "must begin with small"),
        ("title =", "subtitle = 1\ntitle =", "subtitle: Extra inputs"),
        ("title =", "title", "not valid TOML"),
        ("height = 128", 'height = "high"', "data.height"),
    ],
)
def test_a_wrong_preset_is_refused_in_one_line(tmp_path, old, new, message) -> None:
    text = (PRESETS / "demo.toml").read_text()
    assert old in text
    (tmp_path / "own.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as raised:
        load_preset(str(tmp_path / "own.toml"))
    assert "own.toml" in str(raised.value)
    assert not re.search(r"\n", str(raised.value))


@pytest.mark.parametrize("name", known_presets())
def test_every_run_comes_after_the_one_it_starts_from(name: str) -> None:
    done: set[str] = set()
    for run in make_plan(load_preset(name)):
        assert run.init_from is None or run.init_from in done
        assert run.name not in done
        done.add(run.name)


@pytest.mark.parametrize("name", known_presets())
def test_every_test_fits_its_network(name: str) -> None:
    for run in make_plan(load_preset(name)):
        net = empty_network(run, 10)
        for protocol in run.protocols:
            protocol.check_scales(net.least_size, net.image_size)


def test_the_paper_has_18_runs_and_fills_every_row_of_its_tables() -> None:
    preset = load_preset("paper")
    every = make_plan(preset)
    runs = [run for run in every if not run.regression]
    assert (len(runs), len(every)) == (14, 18)
    planned = {(r.configuration, r.recipe.images.scales, p.scales, p.kind) for r in runs for p in r.protocols}
    for _, row in published.rows("3", "4", "5"):
        (member,) = row.members
        assert (member.configuration, member.train, member.test, row.method) in planned
    for row in published.TABLES["6"]:
        for member in row.members:
            wanted = (member.configuration, member.train, member.tuned)
            (run,) = [r for r in runs if (r.configuration, r.recipe.images.scales, _layers(r)) == wanted]
            assert Protocol(row.method, member.test) in run.protocols
    shallow = [run for run in runs if Protocol("center", (256,)) in run.protocols]
    assert [run.name for run in shallow] == ["B-s256", "B-5x5-s256"]


def test_the_paper_fills_tables_8_and_9_and_names_classes_by_the_submission() -> None:
    preset = load_preset("paper")
    every = {run.name: run for run in make_plan(preset)}
    boxes = [run for run in every.values() if run.regression]
    assert all(run.configuration == "D" and run.recipe.optimizer.learning_rate == 1e-3 for run in boxes)
    assert all(every[run.init_from or ""].recipe.images.scales == run.recipe.images.scales for run in boxes)
    settings = {(run.regression, _layers(run)) for run in boxes if Protocol("center", (384,)) in run.protocols}
    assert settings == {(row.members[0].regression, row.members[0].tuned) for row in published.TABLES["8"]}
    tests = {
        f"{run.name} {protocol}": (run.recipe.images.scales, protocol.scales)
        for run in boxes
        if (run.regression, _layers(run)) == ("pcr", "all")
        for protocol in run.protocols
        if protocol.kind == "dense"
    }
    merged = [{tests[text]} for text in tests] + [{tests[text] for text in union} for union in preset.unions]
    for row in published.TABLES["9"]:
        assert {(member.train, member.test) for member in row.members} in merged
    assert len(preset.labels) == len(published.SUBMISSION)
    for member in published.SUBMISSION:
        names = [name for name in preset.labels if every[name].configuration == member.configuration]
        own = {(every[name].recipe.images.scales, _layers(every[name]) == "fc") for name in names}
        assert (member.train, member.tuned == "fc") in own


def _layers(run: Run) -> str:
    return run.recipe.optimizer.trained_layers


def test_the_paper_starts_each_network_as_section_3_1_says() -> None:
    source = {run.name: run.init_from for run in make_plan(load_preset("paper"))}
    assert [name for name, before in source.items() if before is None] == ["A-s256", "A-LRN-s256", "B-5x5-s256"]
    assert {source[f"{net}-s256"] for net in "BCDE"} == {"A-s256"}
    for net in "CDE":
        assert source[f"{net}-s384"] == f"{net}-s256"
        assert source[f"{net}-s256-512"] == f"{net}-s384"
    assert source["D-s256-512-fc"] == "D-s384"


def test_small_has_exactly_its_runs_with_their_sources_and_tests() -> None:
    runs = {run.name: run for run in make_plan(load_preset("small"))}
    assert {name: run.init_from for name, run in runs.items()} == {
        "A-s72": None,
        "B-s72": "A-s72",
        "D-s72": "A-s72",
        "A-s72-144": "A-s72",
        "B-s72-144": "B-s72",
        "D-s72-144": "D-s72",
        "B-modern": None,
        "B-modern-scr-fc": "B-modern",
        "B-modern-scr-all": "B-modern",
        "B-modern-pcr-fc": "B-modern",
        "B-modern-pcr-all": "B-modern",
        "A-s72-pcr-all": "A-s72",
    }
    tests = {name: [str(protocol) for protocol in run.protocols] for name, run in runs.items()}
    assert tests["A-s72"] == ["dense@72", "dense@64,72,80"]
    jitter = ["dense@108", "dense@72,108,144", "crops@72,108,144", "dense+crops@72,108,144"]
    assert tests["A-s72-144"] == tests["B-s72-144"] == tests["D-s72-144"] == jitter
    assert tests["B-modern"] == ["dense@90", "dense@72,90,108"]
    assert {run.recipe.name for run in runs.values()} == {"small-s72", "small-jitter", "small-modern", "small-boxes"}


def test_only_takes_along_what_a_run_starts_from() -> None:
    preset = load_preset("small")
    assert [run.name for run in make_plan(preset, ["D-s72-144"])] == ["A-s72", "D-s72", "D-s72-144"]
    with pytest.raises(UserError, match="did you mean D-s72-144"):
        make_plan(preset, ["D-s72-145"])


DATA = Data(name="some", classes=7, training_images=11, test_images=13, height=64, width=96)


def _settings(changes: dict[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in changes.items()]


def _run(*protocols: str, **changes: object) -> Run:
    recipe = load_recipe("small-s72", ["schedule.epochs=3", "schedule.least_steps=0", *_settings(changes)])
    return Run("A-s72", "A", recipe, None, tuple(map(Protocol.parse, protocols)))


def _forward(net: VGG, height: int, width: int) -> int:
    """Multiply-adds counted by running the network: every output value of a layer costs one filter."""
    total = 0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()  # type: ignore[index, union-attr]

    for layer in net.children():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    net.eval().score_map(torch.zeros(1, 3, height, width, device="meta"))
    return total


def test_cost_counts_three_passes_of_training_and_every_view_of_a_test() -> None:
    run = _run("dense@64,72", "crops@72", "center@72")
    crop = _forward(empty_network(run, 7), 64, 64)
    assert crop == macs(empty_network(run, 7), 64, 64)
    counted = cost(run, DATA)
    assert counted.training == 3 * crop * 11 * 3
    dense = sum(_forward(empty_network(run, 7), side, side * 3 // 2) for side in (64, 72))
    assert counted.testing == 13 * (2 * dense + 50 * crop + crop)
    assert counted.total == counted.training + counted.testing


def test_with_few_images_every_pass_of_an_epoch_counts() -> None:
    assert cost(_run(**{"schedule.least_steps": 30}), DATA).training == 10 * cost(_run(), DATA).training


def test_cost_leaves_out_what_is_done_and_counts_shared_parts_once() -> None:
    run = _run("dense@72", "dense@64,72,80", "crops@72", "dense+crops@72")
    left = cost(run, DATA, trained=True, tested=[Protocol.parse("dense@64,72,80")])
    assert left.training == 0
    assert left.testing == 13 * 50 * _forward(empty_network(run, 7), 64, 64)
    assert cost(run, DATA, trained=True, tested=run.protocols).total == 0


def test_training_fc_layers_alone_costs_their_gradients_alone() -> None:
    run, short = _run(), _run(**{"optimizer.trained_layers": "fc"})
    net = empty_network(run, 7)
    fc = sum(p.numel() for name, p in net.named_parameters() if name.startswith("fc") and name.endswith("weight"))
    assert cost(run, DATA).training - cost(short, DATA).training == 2 * (_forward(net, 64, 64) - fc) * 11 * 3


def test_data_are_measured_and_speed_is_positive() -> None:
    class Images:
        name, classes = "pictures", ("a", "b")
        sizes = ((10, 30), (20, 40), (30, 90))

        def __len__(self) -> int:
            return 3

        def size(self, index: int) -> tuple[int, int]:
            return self.sizes[index]

    data = measure_data(Images(), Images())  # type: ignore[arg-type]
    assert (data.name, data.classes, data.training_images, data.test_images) == ("pictures", 2, 3, 3)
    assert (data.height, data.width) == (20, 40)
    tiny = _run(**{"network.width": 0.02, "network.fc_width": 8, "network.image_size": 32, "precision": "float32"})
    assert measure_speed(tiny, 3, torch.device("cpu"), seconds=0.01) > 1e5
