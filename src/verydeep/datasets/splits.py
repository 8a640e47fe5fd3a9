"""Training, validation and test images: the source's own, or held out of its training images, never shared."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Sample
from verydeep.datasets.layout import Layout

SPLITS = ("train", "val", "test")


def choose_split(layout: Layout, split: str, seed: int, holdout: float) -> tuple[list[Sample], str]:
    """Return the samples of a split, in the source's order, and in words where they come from.

    A split that the source has is its own. Else test is `holdout` of the training images, class by class, and
    val `holdout` of those that remain; train is what is left then. Where the source's own validation images are
    what results on it are reported on (ImageNet, as in the paper), they are test too, and nothing is held out.
    The same images are held out for every split, so the three never overlap as long as seed and share are the same.
    UserError if there are no such images and none to hold them out of, or a class has too few.
    """
    if not 0 < holdout < 1:
        raise UserError(f"holdout is {holdout}; expected a share above 0 and below 1")
    parts = dict(layout.parts)
    told = {name: f"the set's own {name} images" for name in parts}
    if layout.val_is_test and "val" in parts and "test" not in parts:
        parts["test"] = parts["val"]
        told["test"] = "the set's own val images, as is usual for it (val and test are the same images)"
    for name in ("test", "val"):
        if name not in parts and "train" in parts:
            told[name] = f"held out of the training images: {holdout:.0%} of each class, seed {seed}"
            if name == "val" and "test" not in layout.parts:
                told[name] = told[name].replace("images:", "images left after test:")
            leave = 2 if name == "test" and "val" not in parts else 1
            try:
                parts["train"], parts[name] = hold_out(parts["train"], layout.classes, holdout, f"{name} {seed}", leave)
            except UserError as error:
                raise UserError("; ".join([f"{layout.storage.path}: {error}", *layout.notes])) from None
            told["train"] += f", without those held out for {name}"
    if split not in parts:
        has = ", ".join(parts)
        raise UserError(f"{layout.storage.path}: has no {split} images and none to hold them out of (has: {has})")
    return parts[split], "; ".join([f"{split}: {told[split]}", *layout.notes])


def hold_out(
    samples: list[Sample], classes: tuple[str, ...], share: float, key: str, leave: int = 1
) -> tuple[list[Sample], list[Sample]]:
    """Return what is kept and what is held out, `share` of each class, rounded, at least 1, in the order of `samples`.

    Within a class the images with the least hash of (key, id) are taken: which ones depends on nothing but
    their names, so adding images or classes leaves almost all others on their side. `key` names the hold-out: its
    purpose and seed. UserError if a class has images, but not more than `leave`. Images of several classes are divided
    by their rarest one; of such that have it too rarely none is held out.
    """
    by_label: dict[int, list[str]] = {}
    for sample, label in zip(samples, strata(samples), strict=True):
        by_label.setdefault(label, []).append(sample.id)
    several = any(sample.labels is not None for sample in samples)
    held: set[str] = set()
    for label, ids in by_label.items():
        if len(ids) <= leave and several:
            continue
        if len(ids) <= leave:
            raise UserError(
                f"class {classes[label]}: has {len(ids)} images, too few to hold some out; expected {leave + 1} or "
                "more (add some, or take the class away)"
            )
        count = min(max(round(share * len(ids)), 1), len(ids) - leave)
        held.update(sorted(ids, key=lambda name: _rank(key, name))[:count])
    if not held:
        raise UserError(
            f"no class has more than {leave} of the {len(samples)} images, too few to hold some out; add some"
        )
    return [s for s in samples if s.id not in held], [s for s in samples if s.id in held]


def strata(samples: Sequence[Sample]) -> list[int]:
    """Return the class by which each image is divided among splits: its own, of several the rarest; -1 for none."""
    counts = Counter(label for sample in samples for label in sample.labels or ())
    return [
        sample.label if not sample.labels else min(sample.labels, key=lambda label: (counts[label], label))
        for sample in samples
    ]


def _rank(key: str, name: str) -> bytes:
    return blake2b(f"{key}\n{name}".encode(), digest_size=8).digest()
