"""Hooks of the site: README.md is its first page, and files outside docs/ that pages link to are part of it.

Pages link to other files of the repository by relative paths, such as `../export/runtime.py`, which also work where
the repository is read. The hooks add each such file to the site and rewrite the link. A Markdown file becomes a page. A
link to a folder becomes plain text, because a site has no folders.
"""

import logging
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
START = "README.md"
ALSO = ("CONTRIBUTING.md", "CHANGELOG.md")  # in the navigation, whether linked or not

# The targets of Markdown links and of HTML pictures, without code blocks.
_CODE = re.compile(r"(^ *```.*?^ *```\s*?$)", re.MULTILINE | re.DOTALL)
_FOLDER = re.compile(r"\[([^\]]+)\]\(([^)#\s:]+/)\)")
_LINK = re.compile(r"(\]\(|src=\")([^)\"#\s:]+)(?=[)\"#])")

log = logging.getLogger("mkdocs.hooks")  # in a strict build, its warnings are errors


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README.md and every file outside docs/ that a page links to."""
    waiting = [START, *ALSO, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(_added(path, config))
        if not path.endswith(".md"):
            continue
        for target in _targets((ROOT / path).read_text(encoding="utf-8"), path):
            if target not in seen and not target.startswith("docs/") and (ROOT / target).is_file():
                seen.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links between docs/ and the rest of the repository to places in the site."""
    path = _repository_path(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        before, link = match.groups()
        target = _resolved(link, path)
        if not (ROOT / target).is_file():
            log.warning("%s links to %s, which is no file of the repository", path, link)
            return match.group()
        place = os.path.relpath(_site_path(target), Path(page.file.src_uri).parent)
        return before + place

    def without_link(match: re.Match[str]) -> str:
        text, link = match.groups()
        return text if (ROOT / _resolved(link, path)).is_dir() else match.group()

    return "".join(
        part if _CODE.match(part) else _LINK.sub(replaced, _FOLDER.sub(without_link, part))
        for part in _CODE.split(markdown)
    )


def _added(path: str, config: MkDocsConfig) -> File:
    place = _site_path(path)
    listed = place in str(config.nav)
    inclusion = InclusionLevel.INCLUDED if listed else InclusionLevel.NOT_IN_NAV
    return File.generated(config, place, abs_src_path=str(ROOT / path), inclusion=inclusion)


def _targets(markdown: str, path: str) -> list[str]:
    text = _CODE.sub("", markdown)
    return [_resolved(link, path) for _, link in _LINK.findall(text)]


def _resolved(link: str, path: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), link))


def _site_path(path: str) -> str:
    """Returns where a file of the repository lies in the site's sources."""
    return "index.md" if path == START else path.removeprefix("docs/")


def _repository_path(place: str) -> str:
    """Returns the file of the repository behind a file of the site's sources."""
    if place == "index.md":
        return START
    return f"docs/{place}" if (ROOT / "docs" / place).is_file() else place
