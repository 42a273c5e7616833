"""The notebooks of the guide run from the first cell to the last, in a Jupyter kernel."""

import json
from pathlib import Path
from typing import Any

import pytest
from guide_fixtures import PAGES, Workplace

import emovox

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")

# Inputs of each notebook, and the folder that its first cell names for the dataset.
NOTEBOOKS = {
    "notebook-annotations.ipynb": ("published", "emovoxceleb"),
    "notebook-own-videos.ipynb": ("emovox-demo/corpus", "own-videos"),
}


def run(name: str, root: Path) -> list[str]:
    """Run a notebook in a Jupyter kernel that works in `root`; return what it printed or showed."""
    notebook = nbformat.read(PAGES / name, as_version=4)
    resources = {"metadata": {"path": str(root)}}
    nbclient.NotebookClient(notebook, timeout=240, resources=resources).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    return [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """An empty working folder, with its own cache and settings of Jupyter."""
    monkeypatch.setenv("EMOVOX_CACHE", str(tmp_path / "cache"))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = tmp_path / "work"
    root.mkdir()
    return Workplace(root, PAGES / "start.md")


def test_all_notebooks_are_known() -> None:
    assert {path.name for path in PAGES.glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_no_outputs_and_its_paths_in_the_first_cell(name: str) -> None:
    content: dict[str, Any] = json.loads((PAGES / name).read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    for place in NOTEBOOKS[name]:
        assert f'Path("{place}' in "".join(cells[0]["source"])
    assert not any("Path(" in line for cell in cells[1:] for line in cell["source"])


def test_from_the_published_annotations_to_a_figure(work: Workplace) -> None:
    work.provide(["published"])
    shown = "\n".join(run("notebook-annotations.ipynb", work.root))
    dataset = emovox.load(work.root / "emovoxceleb")
    assert len(dataset) == 3 and repr(dataset) in shown
    for split in dataset.splits:
        logits, _ = dataset.to_numpy(split)
        most = max(range(8), key=[*logits.argmax(axis=1)].count)
        share = float((logits.argmax(axis=1) == most).mean())
        assert f"{split:<12}{len(logits):>10,} frames, {share:.0%} {emovox.EMOTIONS[most]}" in shown
    assert (work.root / "emotions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_from_your_own_videos_to_a_student(work: Workplace) -> None:
    work.provide(["emovox-demo/corpus"])
    shown = "\n".join(run("notebook-own-videos.ipynb", work.root))
    assert "tracks    4 written, 0 dropped" in shown
    dataset = emovox.load(work.root / "own-videos")
    assert dataset.splits == ("train", "unheard_val")
    assert "mean of the paper's five" in shown and "teacher" in shown
    assert (work.root / "own-student/best.safetensors").is_file()
