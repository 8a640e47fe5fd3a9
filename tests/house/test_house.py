"""What the house promises whoever works in it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "verydeep"
MOST_PARAMETERS = 8
ESTIMATORS = {"Descriptor"}
"""scikit-learn reads an estimator's parameters off its signature."""


def functions() -> Iterator[tuple[str, int]]:
    for file in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        exempt = {
            id(method)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and node.name in ESTIMATORS
            for method in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and id(node) not in exempt:
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len([name for name in names if name not in ("self", "cls")])
                yield f"{file.relative_to(SOURCE)}:{node.lineno} {node.name}", count


def test_no_function_below_the_commands_takes_more_than_eight_parameters() -> None:
    found = dict(functions())
    assert len(found) > 1000
    assert not {name: count for name, count in found.items() if count > MOST_PARAMETERS and name[:4] != "cli/"}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("verydeep")


def test_no_imports_run_in_a_circle_also_within_a_folder(imports: grimp.ImportGraph) -> None:
    below = {name: imports.find_modules_directly_imported_by(name) for name in imports.modules}
    assert len(below) > 100
    while free := {name for name, needed in below.items() if not needed}:
        below = {name: needed - free for name, needed in below.items() if name not in free}
    assert not below
