"""Where samples come from: readers, splits, the loader."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verydeep.datasets.dataset import Box as Box
    from verydeep.datasets.dataset import Dataset as Dataset
    from verydeep.datasets.dataset import Sample as Sample
    from verydeep.datasets.opening import open_dataset as open_dataset

# Where each public name stands; imported on first use, so that `import verydeep.datasets` stays quick.
_PUBLIC = {
    "Box": "verydeep.datasets.dataset",
    "Dataset": "verydeep.datasets.dataset",
    "Sample": "verydeep.datasets.dataset",
    "open_dataset": "verydeep.datasets.opening",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'verydeep.datasets' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
