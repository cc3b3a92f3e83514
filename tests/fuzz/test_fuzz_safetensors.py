import json
import struct
from pathlib import Path
from typing import Any

import hypothesis
from fuzzing import cases, end_well, json_values, mutated, numbers, words
from hypothesis import strategies as st

import stzoo
from stzoo.forecaster import Forecaster
from stzoo.weights import SPEC_KEY, save_weights

TYPES = ["F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "I64", "U64", "BOOL", "X"]


@st.composite
def headers(draw: st.DrawFn, header: dict[str, Any]) -> bytes:
    """The header of a real file with other tensors in it, or another spec, and another length before it."""
    spec, header = json.loads(header["__metadata__"][SPEC_KEY]), json.loads(json.dumps(header))
    for name in draw(st.lists(st.sampled_from([*header, "extra"]), max_size=3)):
        shape = st.lists(numbers | st.integers(0, 9), max_size=6) | json_values
        offsets = st.lists(numbers | st.integers(0, 9999), min_size=2, max_size=2) | json_values
        types = st.sampled_from(TYPES) | json_values
        made = st.fixed_dictionaries({"dtype": types, "shape": shape, "data_offsets": offsets}) | json_values
        header[draw(st.just(name) | words)] = draw(made)
    if draw(st.booleans()):
        spec |= draw(st.dictionaries(st.sampled_from([*spec, "x"]), json_values | numbers, max_size=2))
        header["__metadata__"] = {SPEC_KEY: draw(st.sampled_from([json.dumps(spec), "[" * 5000, "", "1" * 5000]))}
    content = json.dumps(header, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    length = draw(st.just(len(content)) | numbers)
    return struct.pack("<Q", length % 2**64) + content


@cases(ordinary=300, nightly=15_000)
def test_any_header_is_loaded_or_refused(amount: hypothesis.settings, forecaster: Forecaster, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, forecaster.spec, forecaster.module.state_dict())
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])

    def act(head: bytes) -> None:
        path.write_bytes(head + whole[8 + length :])
        stzoo.load(path)

    end_well(amount, headers(header), act)


@cases(ordinary=200, nightly=10_000)
def test_damaged_bytes_are_loaded_or_refused(
    amount: hypothesis.settings, forecaster: Forecaster, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(path, forecaster.spec, forecaster.module.state_dict())
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")

    def act(start: bytes) -> None:
        path.write_bytes(start + whole[head:])
        stzoo.load(path)

    end_well(amount, mutated([whole[:head]]), act)
