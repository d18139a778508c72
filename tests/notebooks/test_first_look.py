"""The notebook runs from top to bottom, and shows what the library measures."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

import medjax
from medjax.evaluation.embeddings import embed_batches
from medjax.evaluation.zero_shot import zero_shot

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "first_look.ipynb"


@pytest.mark.end_to_end
@pytest.mark.filterwarnings("ignore")  # of the notebook's own machinery
def test_the_notebook_runs_and_agrees(phantom_run, monkeypatch):
    monkeypatch.setenv("MEDJAX_WORKDIR", str(phantom_run))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before committing"
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    printed = "".join(o.get("text", "") for o in outputs)
    encoder = medjax.load(phantom_run)
    dataset = encoder.dataset()
    table = embed_batches(encoder.encode, dataset.evaluation("test", 128), dataset.manifest.labels)
    findings = dataset.manifest.findings
    macro = zero_shot(table, encoder.embed_prompts(findings), findings, encoder.scorer()).macro
    shown = float(re.search(r"macro AUROC\s+([0-9.]+)", printed).group(1))
    assert shown == pytest.approx(macro.value, abs=0.02)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
