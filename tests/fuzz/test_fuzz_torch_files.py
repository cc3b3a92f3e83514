import io
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from fuzzing import cases, end_well, mutated
from hypothesis import strategies as st

from stzoo.convert import convert
from stzoo.convert.torch_file import open_torch_file
from stzoo.errors import WeightsError
from stzoo.spec import ModelSpec

SPEC = ModelSpec(arch="tau", frames_in=3, frames_out=3, channels=2, height=16, width=16, params={"hid_s": 4})
STEPS = [bytes([code]) for code in b"\x80cqhrjtb()]}sueaR\x81Q.0X\x8aKJM\x85\x86\x87GN\x88\x89\x93\x94\x95"]


def saved(content: Any, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


CONTENT = {"state_dict": {"a.weight": torch.ones(4, 3), "b": torch.nn.Parameter(torch.ones(2))}, "epoch": [1, (2.5,)]}
ORIGINALS = [saved(CONTENT, True), saved(CONTENT, False)]


@cases(ordinary=250, nightly=10_000)
def test_a_damaged_checkpoint_is_read_or_refused(amount: hypothesis.settings, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"

    def act(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:  # at least, no tensor of the spec is there
            convert("openstl", path, SPEC, tmp_path / "out")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2000

    pickles = st.lists(st.sampled_from(STEPS) | st.binary(max_size=4), max_size=40).map(b"".join)
    end_well(amount, mutated(ORIGINALS) | pickles, act)
    path.write_bytes(ORIGINALS[1])
    with open_torch_file(path) as file:
        assert torch.equal(file.tensor(file.content["state_dict"]["a.weight"]), torch.ones(4, 3))
