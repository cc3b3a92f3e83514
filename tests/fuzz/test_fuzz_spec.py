import dataclasses
from typing import Any

import hypothesis
import pytest
from fuzzing import cases, end_well, json_values, numbers
from hypothesis import strategies as st

from stzoo.models import architectures, build
from stzoo.spec import ModelSpec, from_mapping

FIELDS = [f.name for f in dataclasses.fields(ModelSpec)]
GOOD = {"arch": "tau", "frames_in": 4, "frames_out": 2, "channels": 3, "height": 64, "width": 64}


def settings_of(arch: str) -> st.SearchStrategy[dict[str, Any]]:
    """Of an architecture: mostly numbers at and around the bounds that its `Config` names, some values of any kind."""
    keys: dict[str, st.SearchStrategy[Any]] = {}
    for f in dataclasses.fields(architectures()[arch].config):
        ends = [end + off for end in (f.metadata.get("low", 0), f.metadata.get("high", 1)) for off in (-1, 0, 1)]
        number = st.sampled_from(ends) | st.integers(1, 16)
        default = [] if f.default is dataclasses.MISSING else [f.default]
        keys[f.name] = st.one_of(number, number, st.lists(number, max_size=4), st.sampled_from([*default, True, False]))
        keys[f.name] |= st.sampled_from(["paper", "public", "incepu", "swin", "mlpmixer", "quantised"]) | json_values
    some = st.fixed_dictionaries({}, optional=keys)
    return some if arch != "modular" else some | st.fixed_dictionaries({"codec": parts(), "predictor": parts()})


def parts() -> st.SearchStrategy[Any]:
    arch = st.sampled_from(sorted(architectures()))
    return arch.flatmap(
        lambda name: st.fixed_dictionaries({"arch": st.just(name)}, optional={"params": settings_or_none(name)})
    )


def settings_or_none(arch: str) -> st.SearchStrategy[Any]:
    return json_values if arch == "modular" else settings_of(arch)


@cases(ordinary=300, nightly=20_000)
def test_any_json_is_a_spec_and_a_module_or_an_error(amount: hypothesis.settings) -> None:
    changes = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), json_values | numbers, max_size=4)
    end_well(amount, changes, lambda change: build(ModelSpec.from_dict(GOOD | change), "meta"))


@cases(ordinary=60, nightly=2_500)
@pytest.mark.parametrize("arch", architectures())
def test_any_settings_are_a_module_or_an_error(arch: str, amount: hypothesis.settings) -> None:
    frames = {
        "arch": st.just(arch),
        "frames_in": st.sampled_from([1, 3, 1024]),
        "frames_out": st.sampled_from([1, 1024]),
        "channels": st.sampled_from([1, 3, 4096]),
        "height": st.sampled_from([1, 60, 64, 16384]),
        "width": st.sampled_from([1, 64, 16384]),
        "params": settings_of(arch),
    }

    def act(values: dict[str, Any]) -> None:
        spec = ModelSpec.from_dict(values)
        from_mapping(architectures()[arch].config, values["params"], "params")
        build(spec, "meta")

    end_well(amount, st.fixed_dictionaries(frames), act)
