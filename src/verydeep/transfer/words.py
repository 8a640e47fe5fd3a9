"""A transfer's result in words, the same for the console and the report."""

from typing import Any


def files_in_words(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each network's file with what it is and how it was tested, and its figures."""
    several = len(result["systems"][0]["splits"]) > 1
    found = []
    for made in result["deployed"]:
        about = [made["system"]] if "system" in made else []  # folders of before name none
        about += [made["split"]] if several and "split" in made else []
        found.append((f"{made['file']} ({', '.join([*about, made['protocol']])})", made))
    return found


def warnings(result: dict[str, Any]) -> list[str]:
    """Return what a reader must know: duplicates, unequal classes, images left out, why there is no network."""
    found = []
    for split in result["duplicates"]:
        if split["test_images"]:
            same = "; ".join(f"{test} = {train}" for test, train in split["examples"][:2])
            found.append(
                f"{split['split']}: {split['test_images']} test images are among the training images, too, byte for "
                f"byte ({same})"
            )
    least, most = result["imbalance"]["least"], result["imbalance"]["most"]
    if most[1] > least[1]:
        treated = "all classes count the same" if result["imbalance"]["weighted"] else "images all count the same"
        found.append(f"{least[1]} ({least[0]}) to {most[1]} ({most[0]}) training images a class; {treated}")
    if result["left_out"]:
        count = len(result["left_out"])
        found.append(f"{count} damaged image{'s' if count > 1 else ''} left out")
    if not result["deployed"]:
        why = result.get("no_network") or "an earlier version wrote this folder; another --out may get one"
        found.append(f"no network, no file: {why}")
    return found


def splits_in_words(splits: list[dict[str, Any]]) -> str:
    """Return how many splits there are, and how many images the first one has for what."""
    first = splits[0]
    return (
        f"{len(splits)} split{'s' if len(splits) > 1 else ''} of {first['train']} images to train on, "
        f"{first['validation']} to choose C on, {first['test']} to test on"
    )
