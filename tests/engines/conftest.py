"""The native library is tested wherever it was built; where not, the reason is printed."""

import pytest

from verydeep.engines import library


def pytest_collection_modifyitems(items):
    if library.find() is None:
        for item in items:
            if "/engines/" in item.nodeid and "needs_no_library" not in item.keywords:
                item.add_marker(pytest.mark.skip(reason=library.MISSING))
