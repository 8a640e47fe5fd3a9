"""What the documentation says is there: its commands, its links, every public name; its generated pages can be made."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import verydeep as vd
from verydeep.basics.version import VERSION
from verydeep.cli.main import app
from verydeep.nets.configurations import NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "SECURITY.md")),
]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page of the site, as Sphinx is given them."""
    where = ROOT / "docs" / "site"
    sys.path.insert(0, str(where))
    try:
        build = _module(where / "build.py")
        folder = tmp_path_factory.mktemp("site") / "pages"
        build.assemble(folder)
    finally:
        sys.path.remove(str(where))
    return folder


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(text: str) -> list[str]:
    """Commands in blocks and in running text; those with an ellipsis or an alternative are no whole ones."""
    text = text.replace("\\\n", "")
    blocks = [
        line for block in re.findall(r"```(?:sh|bash|)\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    found = [line.strip().removeprefix("$ ") for line in [*blocks, *spans]]
    return [line for line in found if line.startswith("verydeep ") and not re.search(r"\.\.\.|\|", line)]


def check(line: str) -> None:
    """Look a command and its options up among those there are."""
    command: Any = (every := typer.main.get_command(app))
    _, *words = shlex.split(line, comments=True)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert command is not every or words[0] == "--version" or words[0].isupper(), line
    options = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    assert options <= {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in commands(text):
        check(line)
    for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)):
        assert (page.parent / target).exists(), target


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall(r"auto(?:function|class):: verydeep\.(\w+)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(set(vd.__all__) - {"__version__"})


def test_a_page_for_each_network_all_alike(site: Path) -> None:
    pages = {name: (site / "networks" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}
    headings = {tuple(re.findall(r"^## .*$", page, re.MULTILINE)) for page in pages.values()}
    assert len(headings) == 1
    assert "| 138,357,544 | 15.47 G |" in pages["D"]  # as published: 138 M (Table 2)
    assert "| 3 | 256 | 256 | one scale, dense | 27.0 | 8.8 |" in pages["D"]
    assert "`torchvision:vgg16`" in pages["D"]
    assert "None are published" in pages["C"]
    for name, page in pages.items():
        assert f"[{name}]({name}.md)" in (site / "networks" / "index.md").read_text(encoding="utf-8")
        for line in commands(page):
            check(line)


def test_the_menu_has_every_page(site: Path) -> None:
    listed = set()
    for page in site.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            listed |= set(re.findall(r"^(?:.*<)?/([^>\n]+)>?$", tree, re.MULTILINE))
    assert listed == {page.relative_to(site).with_suffix("").as_posix() for page in site.rglob("*.md")} - {"index"}


def test_links_out_of_docs_lead_to_pages_or_become_names(site: Path) -> None:
    assert "](benchmarks.md)" in (site / "serving.md").read_text(encoding="utf-8")
    assert "](design.md)" in (site / "contributing.md").read_text(encoding="utf-8")
    assert "test_families.py (`tests/nets/test_families.py`)" in (site / "networks.md").read_text(encoding="utf-8")


def test_the_citation_has_the_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
