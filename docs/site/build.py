"""Builds the documentation site: `python docs/site/build.py build/site`; `make docs` calls it.

The pages of `docs`, texts that stand elsewhere in the repository, and pages that the code writes are put together in
one folder, the menu with them, and Sphinx makes the site of that. Whatever it warns of is an error.
"""

import posixpath
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from network_pages import pages as network_pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXTS = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Texts that stand elsewhere, and their pages."""
MENU: dict[str, tuple[str, tuple[str, ...]]] = {
    "tutorials": ("Start", ("start", "tutorials/*", "questions")),
    "how-to": (
        "How to",
        (
            *("data", "weights", "localization", "scoremaps", "perceptual", "engine", "export"),
            *("serving", "annotators", "many-machines", "python", "*"),
        ),
    ),
    "networks": ("Networks", ("networks/*",)),
    "the-paper": ("The paper", ("paper", "choices", "networks", "studies/*")),
    "reference": ("Reference", ("api/*", "benchmarks", "design", "changelog", "security", "contributing")),
}
"""By folder, the menu's words and pages; `folder/*` is what no other entry names, and a page may not be there."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")


def assemble(folder: Path) -> None:
    """Put every page and picture of the site into an empty folder."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(DOCS, folder, ignore=lambda where, names: {"site"} & set(names) if Path(where) == DOCS else set())
    for text, page in TEXTS.items():
        (folder / page).write_text((ROOT / text).read_text(encoding="utf-8"), encoding="utf-8")
    sources = {page: text for text, page in TEXTS.items()}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for page in (name for name in there if name.endswith(".md")):
        path = folder / page
        text = LINK.sub(_moved(page, sources.get(page, f"docs/{page}"), there), path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    for page, text in network_pages().items():
        _write(folder / page, text)
    _write_menu(folder)


def _moved(page: str, source: str, there: set[str]) -> Callable[[re.Match[str]], str]:
    """Return what turns a link within the repository into one within the site, or into the name of what has no page."""
    folder = posixpath.dirname(page) or "."

    def moved(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = TEXTS.get(path) or path.removeprefix("docs/")
        if ":" in target or not (ROOT / path).exists():
            return found[0]
        if inside not in there:
            return f"{text} (`{path}`)"
        return f"{picture}[{text}]({posixpath.relpath(inside, folder)}{anchor or ''})"

    return moved


def _write_menu(folder: Path) -> None:
    """Add a page for each part of the menu that has none, and the menu to the first page."""
    pages = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")} - {"index"}
    named = {page for _, entries in MENU.values() for page in entries}
    parts = {}
    for name, (title, entries) in MENU.items():
        listed: dict[str, None] = {}
        for entry in entries:
            listed |= dict.fromkeys(_fitting(entry, pages, named) if entry.endswith("*") else {entry} & pages)
        index = f"{name}/index"
        first = folder / f"{index}.md"
        text = first.read_text(encoding="utf-8") if first.is_file() else f"# {title}\n"
        _write(first, text + _tree((f"/{page}" for page in listed if page != index), hidden=index in pages))
        parts[index] = title
    start = folder / "index.md"
    tree = _tree((f"{title} </{index}>" for index, title in parts.items()), hidden=True)
    _write(start, start.read_text(encoding="utf-8") + tree)


def _fitting(pattern: str, pages: set[str], named: set[str]) -> list[str]:
    """Return the pages of a folder that the menu does not name elsewhere, its own first page first."""
    folder = pattern.removesuffix("*")
    found = (page for page in pages - named if page.startswith(folder) and "/" not in page.removeprefix(folder))
    return sorted(found, key=lambda page: (not page.endswith("/index"), page))


def _tree(entries: Iterable[str], *, hidden: bool) -> str:
    return "\n".join(["", "```{toctree}", ":maxdepth: 1", *[":hidden:"] * hidden, "", *entries, "```", ""])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main(out: Path) -> int:
    """Build the site; return Sphinx's status."""
    from sphinx.cmd.build import main as sphinx

    pages = out.with_name(f"{out.name}-pages")
    assemble(pages)
    if out.exists():
        shutil.rmtree(out)
    return int(sphinx(["-q", "-W", "--keep-going", "-E", "-c", str(Path(__file__).parent), str(pages), str(out)]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
