"""A hook of mkdocs: pages that lie outside `docs` are pages of the site, too, and links to them work in both places.

In the repository `docs/index.md` links to `../CONTRIBUTING.md` and `CONTRIBUTING.md` to `docs/glossary.md`. On the
site the folder `docs` is the root, so that the first becomes `CONTRIBUTING.md` and the second `glossary.md`. Other
files outside `docs` that pages link to are copied to the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {  # path in the repository -> path on the site
    "README.md": "overview.md",  # README.md would be the same page as index.md
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "recipes/README.md": "recipes/README.md",
    "recipes/verl/README.md": "recipes/verl/README.md",
    "examples/smollm2/README.md": "examples/smollm2/README.md",
}
SOURCES = {site: source for source, site in PAGES.items()}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config) -> Files:
    for source, site in PAGES.items():
        files.append(File.generated(config, site, content=(ROOT / source).read_text(encoding="utf-8")))
    for page in (*PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages() if file.abs_src_path)):
        for match in LINK.finditer((ROOT / page).read_text(encoding="utf-8")):
            target = in_site(page, match[1])
            if files.get_file_from_path(target) is None and (ROOT / target).is_file():
                files.append(File.generated(config, target, content=(ROOT / target).read_bytes()))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    here = page.file.src_uri
    source = SOURCES.get(here, f"docs/{here}")

    def site_link(match: re.Match) -> str:
        target = in_site(source, match[1])
        return posixpath.relpath(target, posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(site_link, markdown)


def in_site(source: str, link: str) -> str:
    """The path on the site of what the page `source` of the repository links to."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if (ROOT / target / "README.md").is_file():
        target = f"{target}/README.md".removeprefix("./")
    return PAGES.get(target, target.removeprefix("docs/"))
