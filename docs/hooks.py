"""Hooks of mkdocs: pages whose sources lie outside docs/, and the package for its reference.

What a page or the navigation links to becomes a page. Links stay as the repository has them. A
Markdown file becomes a page at its own path, a folder a page that shows its files. A link that
leads nowhere is left as it is, and ``mkdocs build --strict`` fails.

The repository is its own package through a link in .src, which a search for modules would follow
without end. So the search gets a folder of links to what the wheel holds.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()(?!\w+:|[/#])([^)\s#]+)")
"""The path of a relative link of Markdown."""


_package = tempfile.TemporaryDirectory(prefix="srdeploy-docs-")


@event_priority(100)  # before mkdocstrings reads where it looks
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Shows mkdocstrings the package as a wheel has it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    package = Path(_package.name) / "srdeploy"
    package.mkdir(exist_ok=True)
    for pattern in project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]:
        for there in REPOSITORY.glob(pattern.removeprefix("/")):
            here = package / there.name
            if not here.is_symlink():
                here.symlink_to(there)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_package.name]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the pages link to, and what those link to."""
    queue = list(_navigation(config.nav))
    for page in files.documentation_pages():
        queue += _outside(f"docs/{page.src_uri}", page.content_string)
    done = set()
    while queue:
        path = queue.pop()
        if path in done:
            continue
        done.add(path)
        text = _text(path)
        files.append(File.generated(config, _page(path), content=_linked(path, text)))
        queue += _outside(path, text)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links of docs/ to files outside it lead to their pages."""
    if page.file.generated_by:
        return markdown
    return _linked(f"docs/{page.file.src_uri}", markdown)


def _navigation(entry: Any) -> Iterator[str]:
    """Files of the navigation that docs/ does not have."""
    if isinstance(entry, str):
        if not (REPOSITORY / "docs" / entry).exists() and (REPOSITORY / entry).is_file():
            yield entry
    elif entry is not None:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from _navigation(child)


def _target(path: str, link: str) -> str:
    """A link of the file at ``path``, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _is_outside(target: str) -> bool:
    there = REPOSITORY / target
    return not target.startswith(("docs/", "..")) and (
        there.is_dir() or (there.is_file() and _is_text(there))
    )


def _is_text(path: Path) -> bool:
    return path.suffix in {".md", ".py", ".toml", ".txt", ".yml", ""}


def _outside(path: str, text: str) -> list[str]:
    targets = (_target(path, link) for link in LINK.findall(text))
    return [target for target in targets if _is_outside(target)]


def _page(path: str) -> str:
    """Where the page of a file or folder is among the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".md"):
        return path
    return f"{path}/index.md" if (REPOSITORY / path).is_dir() else f"{path}.md"


def _text(path: str) -> str:
    """The file's Markdown, or what shows a file or the files of a folder."""
    there = REPOSITORY / path
    if path.endswith(".md"):
        return there.read_text(encoding="utf-8")
    parts = [f"# {path}"]
    for file in sorted(there.iterdir()) if there.is_dir() else [there]:
        if file.is_file() and _is_text(file):
            body = file.read_text(encoding="utf-8").rstrip()
            language = file.suffix.removeprefix(".")
            parts.append(f"## {file.name}\n\n~~~~{language}\n{body}\n~~~~")
    return "\n\n".join(parts) + "\n"


def _linked(path: str, text: str) -> str:
    """Text with links between sources of the site instead of between files of the repository."""
    base = posixpath.dirname(_page(path)) or "."

    def link(match: re.Match[str]) -> str:
        target = _target(path, match[1])
        inside = target.startswith("docs/") and (REPOSITORY / target).exists()
        return posixpath.relpath(_page(target), base) if inside or _is_outside(target) else match[1]

    return LINK.sub(link, text)
