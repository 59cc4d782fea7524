"""Writes the site: the pages of this folder as HTML, and the API reference by pdoc (`make docs`).

`python docs/build.py site` makes site/index.html (the README), one page for each Markdown file here, and site/api/.
"""

from __future__ import annotations

import html
import shutil
import sys
from pathlib import Path

import markdown2  # pdoc depends on it
import pdoc

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "index": ROOT / "README.md",
    "language": ROOT / "docs/language.md",
    "encrypted": ROOT / "docs/encrypted.md",
    "gpu": ROOT / "docs/gpu.md",
    "pytorch": ROOT / "docs/pytorch.md",
    "architecture": ROOT / "docs/architecture.md",
    "contributing": ROOT / "CONTRIBUTING.md",
    "changelog": ROOT / "CHANGELOG.md",
}
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>stein: {title}</title>
<style>
body {{ max-width: 54rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222 }}
pre {{ background: #f5f5f2; padding: .8rem; overflow-x: auto; line-height: 1.3 }}
code {{ font-size: .9em }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #ccc; padding: .2rem .6rem }}
nav a {{ margin-right: 1rem }}
</style></head><body><nav>{links} <a href="api/stein.html">API</a></nav>
{body}
</body></html>
"""


def page(title: str, text: str) -> str:
    """A Markdown text as a page with the site's links."""
    body = markdown2.markdown(text, extras=["fenced-code-blocks", "tables", "header-ids"])
    for name, path in PAGES.items():
        for link in (path.name, path.relative_to(ROOT).as_posix()):
            body = body.replace(f'href="{link}"', f'href="{name}.html"')
    links = "".join(f'<a href="{name}.html">{name}</a>' for name in PAGES)
    return FRAME.format(title=html.escape(title), links=links, body=body)


def main(folder: Path) -> None:
    """Write the whole site into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in PAGES.items():
        (folder / f"{name}.html").write_text(page(name, path.read_text(encoding="utf-8")), encoding="utf-8")
    # The pages link to these.
    shutil.copytree(
        ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    pdoc.render.configure(docformat="markdown", footer_text="stein")
    layers = ("frontend", "ir", "passes", "backends", "runtime")
    pdoc.pdoc("stein", *(f"stein.{layer}" for layer in layers), output_directory=folder / "api")
    print(f"open {folder / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
