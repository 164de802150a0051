"""`examples/first_minutes.ipynb` runs offline from top to bottom, and shows pictures and tables."""

import base64
import os

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("av")

from tests.scripts import ROOT  # noqa: E402

NOTEBOOK = ROOT / "examples" / "first_minutes.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook, kind):
    """Return all cell outputs of this kind."""
    shown = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return [one["data"][kind] for one in shown if kind in one.get("data", {})]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run all cells of the notebook in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the kernel is another process
    try:
        notebook = nbclient.NotebookClient(
            read(), timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    if place := os.environ.get("DFER_ZOO_SHOTS"):
        for number, picture in enumerate(outputs(notebook, "image/png")):
            with open(f"{place}/notebook_{number}.png", "wb") as stream:
                stream.write(base64.b64decode(picture))
    return notebook


def test_the_notebook_is_valid_and_stored_without_outputs():
    notebook = read()
    nbformat.validate(notebook)
    assert not [c for c in notebook.cells if c.cell_type == "code" and (c.outputs or c.execution_count is not None)]


@pytest.mark.slow
def test_the_notebook_shows_pictures_and_tables(done):
    pictures = [base64.b64decode(picture) for picture in outputs(done, "image/png")]
    assert len(pictures) == 3 and all(len(picture) > 10_000 for picture in pictures)
    tables = outputs(done, "text/html")
    assert len(tables) == 2 and "p_happy" in tables[0] and "mma_dfer.mafw_fold1" in tables[1]
    texts = " ".join(outputs(done, "text/plain"))
    assert "Prediction('puppet.mp4': " in texts and "(48, " in texts
    printed = [
        one for cell in done.cells if cell.cell_type == "code" for one in cell.outputs if one.output_type == "stream"
    ]
    # tqdm, imported by huggingface_hub, warns without ipywidgets
    assert not [one.text for one in printed if one.name == "stderr" and "IProgress not found" not in one.text]
