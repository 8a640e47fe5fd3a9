from pathlib import Path

import pytest

from verydeep.basics.errors import UserError
from verydeep.training.recipe import RECIPES, Recipe, known_recipes, load_recipe, parse_toml
from verydeep.training.schedule import Schedule


@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_is_valid_and_says_where_it_comes_from(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text()
    assert load_recipe(name).name == name
    header = text.split("\n\n")[0]
    assert header.startswith("# ")
    assert f"--recipe {name}" in header


def test_paper_recipes_are_the_papers() -> None:
    s256, s384, jitter = (load_recipe(name) for name in ("paper-s256", "paper-s384", "paper-jitter"))
    sgd = s256.optimizer
    assert (sgd.learning_rate, sgd.momentum, sgd.weight_decay, sgd.batch_size) == (0.01, 0.9, 5e-4, 256)
    assert (s256.schedule.kind, s256.schedule.drops, s256.schedule.factor, s256.schedule.epochs) == (
        "plateau",
        3,
        0.1,
        74,
    )
    assert (s256.network.dropout, s256.network.fc_width, s256.network.batch_norm) == (0.5, 4096, False)
    assert s256.initialization.scheme == "normal(0.01)"
    assert [r.images.scales for r in (s256, s384, jitter)] == [(256, 256), (384, 384), (256, 512)]
    assert s384.optimizer.learning_rate == jitter.optimizer.learning_rate == 1e-3
    assert s256.regularization.label_smoothing == s256.regularization.mixup == s256.regularization.ema == 0
    assert not s256.images.divide_by_std


def test_recipes_of_other_papers_are_theirs() -> None:
    alexnet, zfnet, overfeat, googlenet = (load_recipe(name) for name in ("alexnet", "zfnet", "overfeat", "googlenet"))
    for found in (alexnet, zfnet):
        sgd = found.optimizer
        assert (sgd.learning_rate, sgd.momentum, sgd.batch_size, found.network.dropout) == (0.01, 0.9, 128, 0.5)
    assert (overfeat.optimizer.momentum, overfeat.optimizer.weight_decay) == (0.6, 1e-5)
    halved = [Schedule(overfeat.schedule).factor(epoch) for epoch in (29.9, 30, 55, 61, 75, 89)]
    assert halved == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert Schedule(googlenet.schedule).factor(17) == pytest.approx(0.96**2)
    assert (googlenet.network.dropout, alexnet.network.image_size) == (0.4, 227)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    recipe = load_recipe("modern", ["seed=7", "images.mean=[1, 2, 3]"])
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "again.toml") == recipe
    assert parse_toml(recipe.to_toml(), "")["regularization"]["ema"] == 0.9999


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer.lr=0.1"], "unknown key optimizer.lr; the nearest known one is optimizer.learning_rate"),
        (["optimiser.learning_rate=0.1"], "unknown key optimiser"),
        (["optimizer.learning_rate=-1"], "optimizer.learning_rate: input should be greater than 0, found -1"),
        (["optimizer.learning_rate"], "expected section.key=value"),
        (["seed.x=1"], "seed"),
        (["images.scales=[300, 256]"], "not .smallest, largest."),
        (["images.scales=[200, 256]"], "below network.image_size 224"),
        (["network.image_size=0"], "network.image_size: input should be greater than or equal to 1"),
        (["precision=fp8"], "precision"),
        (["schedule.kind=steps"], "milestones"),
        (["schedule.milestones=[3]"], "milestones"),
    ],
)
def test_wrong_values_are_named(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_recipe("paper-s256", overrides)
    assert "\n" not in str(error.value)


def test_unknown_recipe_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean paper-s256"):
        load_recipe("paper-s25")
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[images\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_word_without_quotes() -> None:
    assert load_recipe("paper-s256", ["images.color_shift=literal"]).images.color_shift == "literal"
    assert Recipe().images.color_shift == "sqrt"
