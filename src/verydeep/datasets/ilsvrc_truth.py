"""The labels of ILSVRC-2012's validation images, in each of the forms in which they go about."""

import csv
import tarfile
from io import BytesIO, StringIO

from scipy.io import loadmat

from verydeep.basics.errors import UserError
from verydeep.datasets.storage import Storage

KAGGLE = "LOC_val_solution.csv"
LIST = "val.txt"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH_FILES = (KAGGLE, LIST, GROUND_TRUTH, DEVKIT)


def read_truth(storage: Storage, wnids: list[str]) -> dict[str, str]:
    """Return the WordNet id of each validation image by its name without ending; {} if there is no ground truth.

    The first of: `LOC_val_solution.csv` (Kaggle's); `val.txt` with lines `name label`, labels counting the sorted
    WordNet ids `wnids` from 0; the devkit's `ILSVRC2012_validation_ground_truth.txt` and `meta.mat`, unpacked or in
    `ILSVRC2012_devkit_t12.tar.gz`. UserError if it is there but not as published.
    """
    if name := _find(storage, KAGGLE):
        return _read_kaggle(storage, name)
    if name := _find(storage, LIST):
        return _read_list(storage, name, wnids)
    content = {part: storage.read(name) for part in (GROUND_TRUTH, META) if (name := _find(storage, part))}
    if name := _find(storage, DEVKIT):
        content = {**_unpack_devkit(storage, name), **content}
    if GROUND_TRUTH not in content:
        return {}
    if META not in content:
        raise UserError(f"{storage.path}: {GROUND_TRUTH} needs the devkit's {META} beside it")
    return _read_devkit(storage, content)


def _find(storage: Storage, file: str) -> str | None:
    """Return the outermost file of that name; lists in `ImageSets` number the images and say no labels."""
    found = [n for n in storage.files if n.rpartition("/")[2] == file and "ImageSets/" not in n]
    return min(found, key=lambda name: (name.count("/"), name), default=None)


def _read_kaggle(storage: Storage, name: str) -> dict[str, str]:
    """Read rows `ILSVRC2012_val_00000001,n01751748 xmin ymin xmax ymax ...`."""
    rows = list(csv.reader(StringIO(storage.text(name))))[1:]
    try:
        return {image: prediction.split()[0] for image, prediction in rows}
    except (ValueError, IndexError):
        raise UserError(f"{storage.where(name)}: expected rows of an image name and its class and box") from None


def _read_list(storage: Storage, name: str, wnids: list[str]) -> dict[str, str]:
    """Read lines `ILSVRC2012_val_00000001.JPEG 65`."""
    truth = {}
    for number, line in enumerate(storage.text(name).splitlines(), 1):
        image, _, label = line.strip().rpartition(" ")
        if not (label.isdecimal() and int(label) < len(wnids)):
            raise UserError(
                f"{storage.where(name)}: line {number} is {line!r}; expected an image name and a label from 0 to "
                f"{len(wnids) - 1}"
            )
        truth[image.rpartition("/")[2].rpartition(".")[0]] = wnids[int(label)]
    return truth


def _unpack_devkit(storage: Storage, name: str) -> dict[str, bytes]:
    content = {}
    try:
        with tarfile.open(fileobj=BytesIO(storage.read(name)), mode="r:gz") as archive:
            for member in archive:
                part = member.name.rpartition("/")[2]
                if part in (GROUND_TRUTH, META) and (file := archive.extractfile(member)):
                    content[part] = file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{storage.where(name)}: is damaged ({error}); download the devkit again") from None
    return content


def _read_devkit(storage: Storage, content: dict[str, bytes]) -> dict[str, str]:
    """Read one ILSVRC2012_ID a line, image after image, and the WordNet id of each from the table of synsets."""
    try:
        synsets = loadmat(BytesIO(content[META]), squeeze_me=True)["synsets"]
        wnid_of = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        lines = content[GROUND_TRUTH].decode("ascii").split()
        return {f"ILSVRC2012_val_{number:08d}": wnid_of[int(line)] for number, line in enumerate(lines, 1)}
    except Exception as error:  # a file that is no .mat makes scipy raise errors of many types
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{storage.path}: the devkit's {META} and {GROUND_TRUTH} do not fit ({what})") from None
