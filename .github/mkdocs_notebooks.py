"""Pages of the site from the notebooks of the guide; mkdocs.yml names this file as a hook."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files


def to_markdown(notebook: Path) -> str:
    """Return the cells of a notebook as Markdown, with a link to the notebook below the title."""
    texts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        texts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, _, rest = texts[0].partition("\n")
    link = f'[Download this notebook]({notebook.name} "for Jupyter")'
    return "\n\n".join([title, link, rest, *texts[1:], ""])


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for file in [file for file in files if file.src_uri.startswith("emovox/guide/")]:
        page = PurePosixPath(file.src_uri)
        if page.suffix == ".ipynb":
            text = to_markdown(Path(file.abs_src_path))
            files.append(File.generated(config, str(page.with_suffix(".md")), content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks lead to their pages; the link for a download has a title."""
    return markdown.replace(".ipynb)", ".md)")
