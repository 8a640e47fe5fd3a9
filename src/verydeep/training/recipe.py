"""Recipes: every choice that decides a run's weights, as validated TOML."""

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from verydeep.basics.errors import UserError
from verydeep.basics.files import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser under its earlier name
    import tomli as tomllib

RECIPES = Path(__file__).parent / "recipes"

AT_FIRST = "torch"
"""The engine of runs whose recipe names none: there was no other."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(_Section):
    """The member of the family; the configuration itself is the command's `--net`."""

    width: Positive = 1.0
    batch_norm: bool = False
    # Of the paper's networks a multiple of 32.
    image_size: Count = 224
    fc_width: Count = 4096
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    # Krizhevsky's formula as written; torch's and Caffe's, which divide it by 5, are alpha = 2e-5 here.
    lrn_alpha: Positive = 1e-4


class Data(_Section):
    """How much each class of the training images counts; the paper takes them as they are."""

    # "weights": every class has the same weight in the loss, whatever the number of its images; "sampling": each has
    # the same number of views in an epoch, so that images of rare classes are seen several times, in other views.
    balance: Literal["none", "weights", "sampling"] = "none"


class Images(_Section):
    """What is cut out of the training images, and how pixels are normalized."""

    # Smallest side S, drawn for each image uniformly from the whole numbers of this range (paper: section 3.1).
    scales: tuple[Count, Count] = (256, 256)
    flip: bool = True
    # "sqrt": shifts by 0.1 standard deviations along the principal colors, as Krizhevsky's code did it;
    # "literal": by his formula as printed, on pixels of [0, 1]. What the paper's authors used is not known.
    color_shift: Literal["sqrt", "literal", "none"] = "sqrt"
    color_scale: NotNegative = 0.1
    # Mean RGB in grey levels: measured on the training set, or given.
    mean: Literal["measured"] | tuple[float, float, float] = "measured"
    # The paper subtracts the mean only; initializations that keep the signal's size want unit variance.
    divide_by_std: bool = False
    interpolation: Literal["bilinear", "bicubic", "box", "lanczos"] = "bilinear"
    pool_round_up: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> "Images":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales: {list(self.scales)} is not [smallest, largest]")
        return self


class Initialization(_Section):
    """Random weights, and what a network given with `--init-from` hands over."""

    # The paper prints "variance 10^-2"; taken literally, normal(0.1), every network diverges at once.
    scheme: str = "normal(0.01)"
    # "auto": all layers from the same configuration; from a shallower one the paper's seven, by name.
    copy_layers: Literal["auto"] | tuple[str, ...] = "auto"
    # Layers that are not taken over from it but stay random; with fc8 among them its classes may be others.
    reset: tuple[str, ...] = ()
    # Fully connected layers that such a network does not get from there. "fitted": whatever the layers below give, the
    # hidden ones answer training images with numbers of mean square 1, and the last one begins at 0, so that the first
    # loss is that of guessing. "drawn": by the scheme, as all others.
    new_layers: Literal["fitted", "drawn"] = "fitted"


class Optimizer(_Section):
    """Mini-batch SGD with momentum (paper: section 3.1)."""

    learning_rate: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 5e-4
    batch_size: Count = 256
    # The batch is worked through in this many parts, to save memory; the gradient is the same,
    # but for batch norm, whose statistics are then of a part.
    accumulation: Count = 1
    # How processes tell each other their gradients: "bf16" halves what goes over the network, and rounds.
    communication: Literal["float32", "bf16"] = "float32"
    # Factors for biases (and batch norm). The paper names none; common Caffe files have 2 and 0.
    bias_learning_rate: NotNegative = 1.0
    bias_weight_decay: NotNegative = 1.0
    # "fc": only fc6, fc7 and fc8 are trained, as for one network of the paper's submission.
    trained_layers: Literal["all", "fc"] = "all"
    # Factors on the learning rate of layers whose names begin so, the longest that fits; 0 freezes them: {conv = 0.1}.
    layer_learning_rates: dict[str, NotNegative] = {}


class Schedule(_Section):
    """How the learning rate falls and when training ends."""

    # "plateau": divided when validation accuracy stops improving; "cosine": one fall to 0 after the warm-up; "steps":
    # multiplied by `factor` after each of the epochs in `milestones`.
    kind: Literal["plateau", "cosine", "steps"] = "plateau"
    epochs: Count = 74
    # Where all epochs together would have fewer steps than this, because there are few images, an epoch is several
    # passes over them. The paper knows no such thing: 0.
    least_steps: Annotated[int, Field(ge=0)] = 0
    warmup_epochs: NotNegative = 0.0
    # Plateau: epochs without a new best error before a drop (the paper does not say), drops, division.
    patience: Count = 5
    drops: Annotated[int, Field(ge=0)] = 3
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    milestones: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _steps_have_places(self) -> "Schedule":
        if (self.kind == "steps") != bool(self.milestones):
            raise ValueError("schedule.milestones: the epochs at which the rate falls belong to kind = 'steps'")
        return self


class Regularization(_Section):
    """Later inventions; the paper has none of them, and they are off by default."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # Parameter of mixup's beta distribution; 0 is off.
    mixup: NotNegative = 0.0
    # Decay of the weights' moving average, which is then what is tested and saved; 0 is off.
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Boxes(_Section):
    """Localization (paper: appendix A.1); training for classes does not look at it."""

    # A crop is drawn anew where it shows less than this share of the most of the object that a crop could show.
    # OverFeat trains on windows that overlap by half with the object; the paper does not say.
    least_visible: Annotated[float, Field(ge=0, le=1)] = 0.5


class Segmentation(_Section):
    """A class for each pixel; training for anything else does not look at it. Defaults are as published for FCNs."""

    # Rows and columns of a view. A picture that is smaller is filled up at its end with the mean color, and with pixels
    # that do not count: 500 x 500 holds VOC's pictures whole, as they were trained on.
    crop: tuple[Count, Count] = (500, 500)
    # Factor on the picture's sides, drawn for each view, log-uniform; pictures are tested at the range's middle.
    factors: tuple[Positive, Positive] = (1.0, 1.0)
    # What makes the first fully connected layer fit at the edges: "image", 100 pixels of zeros around the picture, as
    # published; "map", zeros around that layer's input, which takes half the time of a picture of 500 pixels.
    padding: Literal["image", "map"] = "image"
    # Factors on the maps of stride 16 and 8 before they are scored: [0.01, 0.0001] in the published network that is
    # trained at once, 1 in those that are trained in stages.
    skip_scales: tuple[Positive, Positive] = (1.0, 1.0)
    # "sum": over a picture's pixels, not divided by their number, as published; "mean": over all that are labeled.
    loss: Literal["sum", "mean"] = "sum"

    @model_validator(mode="after")
    def _ordered(self) -> "Segmentation":
        if self.factors[0] > self.factors[1]:
            raise ValueError(f"segmentation.factors: {list(self.factors)} is not [smallest, largest]")
        return self


class Recipe(_Section):
    """Every choice that decides a run's weights, beside the configuration and the data."""

    name: str = "custom"
    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bf16"] = "float32"
    # What runs the 3x3 convolutions: "auto" is the native engine on a CPU in float32, else torch. A run keeps the one
    # that it began with.
    engine: Literal["auto", "native", "torch"] = "auto"
    network: Network = Network()
    data: Data = Data()
    images: Images = Images()
    initialization: Initialization = Initialization()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    regularization: Regularization = Regularization()
    boxes: Boxes = Boxes()
    segmentation: Segmentation = Segmentation()

    @model_validator(mode="after")
    def _crop_fits(self) -> "Recipe":
        if self.images.scales[0] < self.network.image_size:
            raise ValueError(
                f"images.scales: smallest side {self.images.scales[0]} is below network.image_size "
                f"{self.network.image_size}, so that a crop would not fit"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the first recipes had not, where it changes nothing: files stay as they were."""
        values: dict[str, Any] = default(self)
        usual = {"data": Data(), "segmentation": Segmentation(), "engine": AT_FIRST}
        return {key: value for key, value in values.items() if key not in usual or getattr(self, key) != usual[key]}

    def passes(self, images: int) -> int:
        """Return how many times an epoch passes over so many training images.

        Examples
        --------
        >>> recipe = Recipe(schedule=Schedule(epochs=10, least_steps=600), optimizer=Optimizer(batch_size=64))
        >>> recipe.passes(12), recipe.passes(640), recipe.passes(6400)
        (60, 6, 1)
        """
        steps = self.schedule.epochs * max(1, images // self.optimizer.batch_size)
        return max(1, -(-self.schedule.least_steps // steps))

    def to_toml(self) -> str:
        """Return the effective recipe, every key with its value."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def known_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by name or from a TOML file, and change single values.

    Parameters
    ----------
    source : str or Path
        A name of `known_recipes()` or the path of a TOML file.
    overrides : iterable of str
        `section.key=value` in TOML's notation, for example `optimizer.learning_rate=0.005`.

    Returns
    -------
    Recipe
        Validated and complete.

    Raises
    ------
    UserError
        No such recipe, no valid TOML, an unknown key (the nearest known one is named) or a value out of range.

    Examples
    --------
    >>> load_recipe("paper-s256", ["optimizer.learning_rate=0.005"]).optimizer.learning_rate
    0.005
    """
    return complete(read_values(source), overrides, source)


def read_values(source: str | Path) -> dict[str, Any]:
    """Return the values that a recipe itself states, not validated; arguments and errors as of `load_recipe`."""
    path = Path(source) if Path(source).suffix == ".toml" else RECIPES / f"{source}.toml"
    if not path.is_file():
        nearest = get_close_matches(str(source), known_recipes(), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "or give the path of a .toml file"
        raise UserError(f"no recipe {str(source)!r}: known are {', '.join(known_recipes())}; {hint}")
    values = parse_toml(read_text(path), str(path))
    if values.pop("run", None) is not None:  # a run folder's recipe.toml also says what it was used for
        values.setdefault("engine", AT_FIRST)
    values.setdefault("name", path.stem)
    return values


def complete(values: dict[str, Any], overrides: Iterable[str], source: str | Path) -> Recipe:
    """Return the recipe that `read_values`' values make with overrides set; a UserError names `source`."""
    for override in overrides:
        _set(values, override)
    return validate(values, source)


def validate(values: dict[str, Any], source: str | Path) -> Recipe:
    """Return the recipe that values of TOML describe; a UserError names `source`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"recipe {source}: {_first_problem(error)}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return TOML's values; a UserError names `where` they stand."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not valid TOML: {error}") from None


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: expected section.key=value, for example optimizer.learning_rate=0.005")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a word without quotes
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {section!r} is no section of a recipe")
    values[last] = value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("tuple[", "literal[")))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place}; {_nearest(place)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    return f"{place}: {message[0].lower()}{message[1:]}, found {problem['input']!r}"


def _nearest(place: str) -> str:
    """Say which key is meant, by its name alone or its initials, or which ones there are."""
    section, _, name = place.rpartition(".")
    keys = [key for key in _keys(Recipe, "") if key.count(".") or key in ("engine", "precision", "seed")]
    within = [key for key in keys if key.startswith(f"{section}.")] if section else keys
    initials = [key for key in within if "".join(word[0] for word in key.rpartition(".")[2].split("_")) == name]
    close = get_close_matches(name, [key.rpartition(".")[2] for key in within], n=1, cutoff=0.5)
    named = [key for key in within if key.rpartition(".")[2] in close]
    meant = initials or named or get_close_matches(place, keys, n=1)
    return f"the nearest known one is {meant[0]}" if meant else f"known are {', '.join(within or keys)}"


def _keys(model: type[BaseModel], prefix: str) -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
