import json
from typing import Any

import hypothesis
from fuzzing import cases, end_well, json_values, mutated
from hypothesis import strategies as st

from stzoo.catalog import manifest_path, parse_manifest

NAMES = ("tau-mmnist", "vqvae-mmnist", "predrnn-modular-mmnist", "tau-radar")  # of every kind; all would take longer


def few_entries() -> dict[str, Any]:
    manifest = json.loads(manifest_path().read_bytes())
    return manifest | {"models": {name: manifest["models"][name] for name in NAMES}}


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A manifest in which some values, at any depth, are others, are gone, or are there under another name."""
    manifest: Any = few_entries()
    for _ in range(draw(st.integers(1, 3))):
        inside, depth = manifest, draw(st.integers(0, 7))
        while True:
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if depth and isinstance(inside[key], (dict, list)):
                inside, depth = inside[key], depth - 1
                continue
            how = draw(st.sampled_from(["other", "other", "gone", "renamed", "moved"]))
            if how == "other":
                inside[key] = draw(json_values)
            elif how == "gone":
                del inside[key]
            elif how == "renamed" and isinstance(inside, dict):
                inside[draw(st.text(max_size=5))] = inside.pop(key)
            else:
                inside[key] = json.loads(json.dumps(draw(st.sampled_from(list(few_entries()["models"].values())))))
            break
    return json.dumps(manifest).encode()


@cases(ordinary=250, nightly=10_000)
def test_a_changed_manifest_is_read_or_refused(amount: hypothesis.settings) -> None:
    end_well(amount, changed(), parse_manifest)


@cases(ordinary=150, nightly=10_000)
def test_damaged_bytes_are_read_or_refused(amount: hypothesis.settings) -> None:
    whole = json.dumps(few_entries()).encode()
    end_well(amount, mutated([whole]) | st.binary(max_size=64), parse_manifest)
