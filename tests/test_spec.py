import contextlib
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stzoo
from stzoo.errors import ForecastError, SpecError
from stzoo.models import architectures, build, config_of
from stzoo.spec import ModelSpec

GOOD = {"arch": "tau", "frames_in": 4, "frames_out": 2, "channels": 3, "height": 16, "width": 32}


def test_every_public_name_is_there() -> None:
    """They are imported when they are first used, so a wrong home would be noticed then only."""
    assert [name for name in stzoo.__all__ if not hasattr(stzoo, name)] == []


def test_round_trip_is_equal_and_hashable() -> None:
    spec = ModelSpec.from_dict(GOOD | {"mean": [1, 2, 3], "std": [1.5], "params": {"hid_s": 8}})
    assert ModelSpec.from_dict(spec.to_dict()) == spec
    assert len({spec, ModelSpec.from_dict(spec.to_dict())}) == 1


def test_is_frozen_all_the_way_down() -> None:
    spec = ModelSpec.from_dict(GOOD | {"params": {"hid_s": 8}})
    with pytest.raises(AttributeError):
        spec.channels = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.params["hid_s"] = 4  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chanels": 1}, "did you mean channels"),
        ({"frames_in": 0}, "spec.frames_in is 0"),
        ({"frames_in": 10**12}, "spec.frames_in"),
        ({"frames_in": True}, "of type int"),
        ({"frames_in": 4.0}, "of type int"),
        ({"std": [0.0]}, "must be positive"),
        ({"std": [float("nan")]}, "must be finite"),
        ({"mean": [0.0, 0.0]}, "1 or 3"),
        ({"value_range": [1.0, 0.0]}, "low must be below high"),
        ({"value_range": [1.0]}, "must have 2"),
        ({"params": 3}, "must be a mapping"),
        ({"params": {"hid_s": float("nan")}}, r"spec\.params\.hid_s is nan; it must be finite"),
        ({"params": {"hid_s": [{"x": 2**63}]}}, r"spec\.params\.hid_s\[0\]\.x is 9223372036854775808; .* 64 bits"),
        ({"params": {"hid_s": 10**5000}}, r"spec\.params\.hid_s is a number of absurd size"),
        ({"arch": 10**5000}, r"spec\.arch is a number of absurd size; it must be of type str"),
        ({"\ud800": 1}, r"spec\.'\\ud800' is not a known key"),
        ({"x" * 10**6: 1}, r"spec\.'x{99}\.\.\. is not a known key"),
        ({"mean": "x" * 10**6}, r"spec\.mean is 'x{99}\.\.\.; it must be a list"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        ModelSpec.from_dict(GOOD | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arch": "tao"}, "may be tau"),
        ({"params": {"hid_z": 8}}, r"spec.params.hid_z .* did you mean hid_"),
        ({"params": {"hid_s": -8}}, "spec.params.hid_s"),
        ({"params": {"hid_s": 7}}, "must be even"),
        ({"params": {"statical": 1}}, "of type bool"),
        ({"height": 18}, "multiples of 4"),
    ],
)
def test_params_are_checked_by_their_architecture(change: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        build(ModelSpec.from_dict(GOOD | change), "meta")


@pytest.mark.parametrize("change", [{"frames_in": 0}, {"std": ("a",)}, {"width": 2.5}])
def test_specs_made_in_python_are_checked_too(change: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=rf"spec.{next(iter(change))}"):
        ModelSpec(**(GOOD | change))


def test_equal_specs_have_equal_hashes() -> None:
    a, b = (ModelSpec.from_dict(GOOD | {"params": {"layer_scale": x}}) for x in (1, 1.0))
    assert a == b
    assert hash(a) == hash(b)


def test_replace_reaches_fields_and_params() -> None:
    spec = ModelSpec.from_dict(GOOD | {"params": {"hid_s": 8}}).replace(height=64, hid_t=16)
    assert (spec.height, dict(spec.params)) == (64, {"hid_s": 8, "hid_t": 16})


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "mean", "std", "value_range", "fill", "params", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
    )
)
def test_any_json_is_a_spec_or_a_spec_error(values: dict[str, object]) -> None:
    try:
        spec = ModelSpec.from_dict(GOOD | values)
    except SpecError:
        return
    assert ModelSpec.from_dict(spec.to_dict()) == spec


def test_a_spec_cannot_ask_for_more_parameters_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a terabyte of them."""
    large = ModelSpec.from_dict(GOOD | {"params": {"hid_t": 8192, "mlp_ratio": 16, "n_t": 64}})
    for device in ("cpu", "meta"):
        with pytest.raises(
            SpecError, match=r"would have 148,\d+,\d+,\d+ parameters, more than the 500,000,000 .*STZOO_"
        ):
            build(large, device)
    small = ModelSpec.from_dict(GOOD | {"params": {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}})
    count = sum(t.numel() for t in build(small).state_dict().values())
    monkeypatch.setenv("STZOO_MAX_PARAMETERS", str(count))
    build(small)
    monkeypatch.setenv("STZOO_MAX_PARAMETERS", str(count - 1))
    with pytest.raises(SpecError, match=f"would have {count:,} parameters, more than the {count - 1:,}"):
        build(small)
    monkeypatch.setenv("STZOO_MAX_PARAMETERS", "1000000000000000")
    assert next(build(large, "meta").parameters()).is_meta
    for bad in ("0", "-1", "1e9", "many", "1" * 5000, "\u0661"):
        monkeypatch.setenv("STZOO_MAX_PARAMETERS", bad)
        with pytest.raises(SpecError, match=r"STZOO_MAX_PARAMETERS is '.*it must be a whole number"):
            build(small)


def test_the_parts_of_a_modular_design_are_counted_too() -> None:
    predictor = {"arch": "predrnn", "params": {"layers": 32, "hidden": 4096, "kernel": 31}}
    with pytest.raises(SpecError, match=r"in the predictor: this predrnn would have [\d,]+ parameters"):
        build(
            ModelSpec(
                arch="modular", frames_in=1, frames_out=1, channels=1, height=64, width=64,
                params={"codec": {"arch": "vqvae", "params": {"dim": 8}}, "predictor": predictor},
            ),
            "meta",
        )  # fmt: skip


def test_counting_first_does_not_change_what_is_drawn() -> None:
    """The seed of a training run decides its weights, whatever was looked at before."""
    spec = ModelSpec.from_dict(GOOD | {"params": {"hid_s": 4, "hid_t": 8, "n_s": 2, "n_t": 2}})
    torch.manual_seed(0)
    built = build(spec).state_dict()
    torch.manual_seed(0)
    made = architectures()["tau"].module(spec, config_of(spec)).state_dict()
    assert all(torch.equal(built[name], made[name]) for name in made)


def test_lists_of_layers_are_bounded() -> None:
    with pytest.raises(SpecError, match=r"spec\.params\.lstm has 100000 values; it may have at most 32"):
        build(ModelSpec.from_dict(GOOD | {"arch": "phydnet", "params": {"lstm": [1] * 100_000}}), "meta")


def test_every_architecture_has_a_frozen_config() -> None:
    for architecture in architectures().values():
        assert architecture.config.__dataclass_params__.frozen


def nested(**changes: object) -> ModelSpec:
    params = {"codec": {"arch": "vqvae", "params": {"dim": 8}}, "predictor": {"arch": "predrnn"}, "list": [1, [2]]}
    return ModelSpec(
        arch="modular", frames_in=1, frames_out=1, channels=1, height=8, width=8, params=params | changes
    )  # fmt: skip


def test_nested_params_are_copied_frozen_and_come_back() -> None:
    mine = {"arch": "vqvae", "params": {"dim": 8}}
    spec = nested(codec=mine)
    mine["params"]["dim"] = 9  # type: ignore[index]
    assert spec.params["codec"]["params"]["dim"] == 8
    with pytest.raises(TypeError):
        spec.params["codec"]["params"]["dim"] = 7
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec == pickle.loads(pickle.dumps(spec)) == spec.replace(height=8)
    assert spec.to_dict()["params"]["list"] == [1, [2]]
    assert nested(codec=again.params["codec"]) == spec  # a part of another spec does as it is


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, r"spec\.params\.codec is of type set"),
        ({"params": {"dim": {1}}}, r"spec\.params\.codec\.params\.dim is of type set"),
        ([1, b"x"], r"spec\.params\.codec\[1\] is of type bytes"),
    ],
)
def test_what_is_no_json_is_refused(value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        nested(codec=value)


def test_endless_nesting_is_refused() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    with pytest.raises(SpecError, match="nested more than 8 deep"):
        nested(codec=endless)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean", (1e300,)), ("mean", (-3.5e38,)), ("std", (1e300,)), ("std", (1e-320,)), ("std", (1e-39,)),
        ("fill", 1e39), ("fill", -1e300), ("value_range", (0.0, 1e300)), ("value_range", (-3e38, 3e38)),
        ("value_range", (1.0, 1.0 + 1e-9)), ("value_range", (0.0, 1e-320)),
    ],
)  # fmt: skip
def test_numbers_that_float32_does_not_hold_are_refused(field: str, value: object) -> None:
    """PyTorch would fail later, without a word of the spec."""
    good = {"arch": "tau", "frames_in": 1, "frames_out": 1, "channels": 1, "height": 64, "width": 64}
    with pytest.raises(SpecError, match=rf"spec\.{field} is .*{'float32|at least|differ'}"):
        ModelSpec.from_dict(good | {field: value})


@pytest.mark.parametrize("change", [{"mean": (3e38,)}, {"std": (2e-38,)}, {"value_range": (-1e38, 1e38)}])
def test_extreme_numbers_forecast_or_say_what_is_wrong(change: dict[str, object]) -> None:
    params = {"hid_s": 4, "hid_t": 8, "n_s": 1, "n_t": 2}
    spec = ModelSpec(arch="conv", frames_in=2, frames_out=2, channels=1, height=16, width=16, params=params)
    model = stzoo.create(spec.replace(**change))
    for frames in (np.zeros((2, 16, 16), np.float32), np.full((2, 16, 16), 255, np.uint8)):
        with contextlib.suppress(ForecastError):
            assert np.isfinite(model.predict(frames)).all()
