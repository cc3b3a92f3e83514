"""In the kernel of a notebook, where the packages of the extra `docs` are installed."""

import pytest
from showing.parsed import Parsed

nbformat = pytest.importorskip("nbformat")
client = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

CELLS = (
    "import numpy as np, stzoo\nfrom stzoo.spec import ModelSpec\n"
    "model = stzoo.create(ModelSpec(arch='conv', frames_in=2, frames_out=2, channels=1, height=16, width=16,\n"
    "    params=dict(hid_s=4, hid_t=8, n_s=2, n_t=2)))\n"
    "frames = np.zeros((2, 16, 16), np.uint8)\nmodel",
    "future = model.rollout(frames, 3, progress=True)\nmodel",
    "stzoo.show(frames, future)",
    "stzoo.info('tau-mmnist')",
)


@pytest.mark.slow
def test_objects_show_themselves_and_nothing_warns() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert [[output.output_type for output in each] for each in outputs] == [["execute_result"]] * len(CELLS)
    pictures = [len(Parsed(output.data["text/html"]).pictures) for (output,) in outputs]
    assert pictures == [0, 1, 1, 0]
