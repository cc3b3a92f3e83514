"""The records: what they say is consistent, and every model that is supported has the size that was published."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from models.published_shapes import published_shapes

import stzoo
from stzoo import catalog
from stzoo.convert.deciding import decided
from stzoo.errors import NotPublishedError, SpecError, UnknownModelError
from stzoo.models import architecture_of, build, config_of
from stzoo.published import PublishedCheckpoint, info, list_published, published
from stzoo.published.records import best_for, is_published_name, name_of
from stzoo.published.support import same_model, why_unsupported
from stzoo.spec import ModelSpec

RECORDS = published()


def unread(spec: ModelSpec) -> int:
    """How many parameters the publisher counts that nothing reads, which our modules therefore have not."""
    p = spec.params
    if spec.arch == "convlstm":  # each cell carries a gate's convolution and a 1x1 one
        return p["layers"] * (2 * p["hidden"] ** 2 * p["kernel"] ** 2 + 2 * p["hidden"] ** 2)
    if spec.arch == "predrnnpp":
        return p["layers"] * 2 * p["hidden"] ** 2 * p["kernel"] ** 2
    if spec.arch == "swinlstm":  # a second embedding, and a layer in every other block
        places = [(n, 128 << i) for i, n in enumerate(p["down"])] + [(n, 512 >> i) for i, n in enumerate(p["up"])]
        return 128 * 4 + 3 * 128 + sum(n // 2 * (2 * width + 1) * width for n, width in places)
    return 3 * 2 * p["hidden"] ** 2 if spec.arch == "mim" else 0  # three units carry a 1x1 convolution


@cache
def counted(spec: str) -> int:
    """The parameters of the module, built without memory, and those that nothing reads."""
    wanted = ModelSpec.from_dict(json.loads(spec))
    return sum(p.numel() for p in build(wanted, "meta").parameters()) + unread(wanted)


def test_there_are_all_of_them() -> None:
    assert sum(record.publisher == "openstl" for record in RECORDS.values()) == 270
    assert sum(record.git is not None for record in RECORDS.values()) == 4
    assert len({record.url for record in RECORDS.values()}) == len(RECORDS) == 274
    assert len({record.url.rpartition("/")[2] for record in RECORDS.values()}) == 274  # so a mirror is one folder
    assert len({re.sub(r"[-.]", "_", name) for name in RECORDS}) == 274  # as torch.hub calls them
    assert sum(record.unsupported is not None for record in RECORDS.values()) == 7


@pytest.mark.parametrize("publisher", ["openstl", "official"])
def test_every_record_is_whole_and_its_name_follows_the_rule(publisher: str) -> None:
    for name, record in RECORDS.items():
        if record.publisher != publisher:
            continue
        assert name == name_of(record.model, record.dataset, record.variant, publisher, record.epochs)
        assert info(name) == record
        assert is_published_name(name)
        assert re.fullmatch(r"https://(github\.com|raw\.githubusercontent\.com)/[\w./-]+", record.url)
        assert record.git is None or re.fullmatch(r"[0-9a-f]{40}", record.git)
        assert record.figures
        assert all(float(value) > 0 for value in record.figures.values())
        assert all(
            type(text) is str and text for text in (record.method, record.license, record.protocol, *record.notes)
        )
        assert (record.described is None) <= (record.unsupported is not None)
        assert str(record).startswith(f"{name}: ")
        if record.described is not None:
            assert isinstance(record.spec, ModelSpec)


def test_an_entry_has_the_spec_of_the_records_that_are_called_after_it() -> None:
    called = [record for record in RECORDS.values() if record.base in catalog.entries()]
    assert len(called) > 20
    for record in called:
        assert record.dataset == catalog.info(record.base).dataset
        if why_unsupported(record) is None:
            assert same_model(record.spec, catalog.info(record.base).spec), record.name


@pytest.mark.parametrize("dataset", sorted({record.dataset for record in RECORDS.values()}))
def test_models_have_the_published_number_of_parameters(dataset: str) -> None:
    """To the last printed digit, which publishers cut or round; where they do not, the record says so."""
    for record in RECORDS.values():
        if record.dataset != dataset or why_unsupported(record) is not None or record.parameters is None:
            continue
        text = record.parameters.removesuffix("M")
        unit = 10.0 ** -len(text.partition(".")[2])
        found = counted(json.dumps(record.spec.to_dict())) / 1e6
        assert (abs(found - float(text)) < unit) == (record.doubt is None), (record.name, found)


def decided_by_tensors(record: PublishedCheckpoint, held: ModelSpec) -> ModelSpec:
    """What is built if the file of this record holds the tensors of `held`."""
    spec = record.spec
    known = {name: value for name, value in record.frames.items() if name != "frames_in"} | {"arch": spec.arch}
    presumed = {"frames_in": spec.frames_in, "params": spec.params}
    found = decided(Path("x.pth"), record.layout, published_shapes(held, record.layout), known, presumed, {}).spec
    return architecture_of(found).layouts[record.layout].spec(found, config_of(found))


@pytest.mark.parametrize("dataset", sorted({record.dataset for record in RECORDS.values()}))
def test_a_file_that_is_what_its_record_says_is_built_as_its_record_says(dataset: str) -> None:
    """From names and shapes; records that differ only in what no tensor tells, such as epochs, are looked at once."""
    records = [r for r in RECORDS.values() if r.dataset == dataset and why_unsupported(r) is None]
    for record in {json.dumps([r.layout, r.spec.to_dict()]): r for r in records}.values():
        found = decided_by_tensors(record, record.spec)
        if record.spec.params.get("translator") == "swin":  # whose tensors tell the window, which the record leaves out
            found = found.replace(window=None)
        assert same_model(found, record.spec), (record.name, found)


@pytest.mark.parametrize(
    ("name", "held", "millions"),
    [
        ("simvp-incepu-kth.openstl-ep100", {"n_t": 6}, 12.152),
        ("simvp-incepu-kth.openstl-ep100", {"n_t": 4}, 8.60),
        ("simvp-vit-human.openstl-ep50", {"hid_t": 512, "n_t": 6, "n_s": 4}, 28.319),
        ("simvp-vit-human.openstl-ep50", {"hid_t": 256, "n_t": 8}, 11.00),
        ("simvp-uniformer-human.openstl-ep50", {"hid_t": 512, "n_t": 6, "n_s": 4}, 27.714),
        ("simvp-uniformer-human.openstl-ep50", {"hid_t": 512, "n_t": 8}, 38.23),
        ("phydnet-human.openstl-ep50", {"width": 48, "lstm": [128, 96], "kernel": 5}, None),
        ("tau-kitti-caltech.openstl-ep100", {"hid_t": 512, "n_t": 8, "n_s": 4}, 44.66),
        ("tau-kitti-caltech.openstl-ep100", {}, 14.96),
        ("predrnn-mmnist-cifar.openstl-ep200", {}, 24.56),
        ("predrnn-mmnist-cifar.openstl-ep200", {"patch": 2}, None),
        ("predrnnpp-mmnist-cifar.openstl-ep200", {}, 39.305),
        ("predrnnv2-mmnist-cifar.openstl-ep200", {}, 24.576),
        ("mau-weather-r.openstl-ep50", {"shrink": 4}, 3.96),
        ("mau-weather-r.openstl-ep50", {"shrink": 2}, 5.46),
        *((f"e3dlstm-public-weather-{v}.openstl-ep50", {"patch": 2}, None) for v in ("t2m", "r", "uv10", "tcc")),
        *((f"e3dlstm-public-weather-{v}.openstl-ep50", {"layers": 3, "hidden": 64}, None) for v in ("t2m", "uv10")),
    ],
)
def test_where_published_facts_contradict_each_other_the_tensors_decide(
    name: str, held: dict[str, Any], millions: float | None
) -> None:
    """Names and shapes of what the file may hold, with the counts that are known of it."""
    spec = ModelSpec.from_dict((was := RECORDS[name].spec.to_dict()) | {"params": was["params"] | held})
    found = decided_by_tensors(RECORDS[name], spec)
    assert same_model(found, spec)
    if millions is not None:
        assert counted(json.dumps(found.to_dict())) / 1e6 == pytest.approx(millions, abs=0.011)


@pytest.mark.parametrize(
    ("entry", "taken"),
    [
        ("tau-kth", "tau-kth.openstl-ep100"),
        ("tau-taxibj", "tau-taxibj.openstl-ep50"),
        ("tau-mmnist-paper", "tau-mmnist-paper.openstl-ep2000"),
        ("predrnn-mmnist-paper", "predrnn-mmnist-paper.openstl-ep200"),  # 23.97, after 2,000 epochs 26.43
        ("crevnet-mmnist-paper", "crevnet-mmnist-paper.openstl-ep200"),
        ("prednet-mmnist-paper", "prednet-mmnist-paper.openstl-ep2000"),
        ("prednet-kitti-caltech", "prednet-kitti-caltech.openstl-ep100"),
        ("tau-kitti-caltech", None),  # its size is in doubt
        ("predrnn-kth", None),  # the published one has other patches
        ("e3dlstm-mmnist-paper", None),  # the published one is of the public variant
        ("lmc-mmnist", None),
    ],
)
def test_what_an_entry_without_weights_takes(entry: str, taken: str | None) -> None:
    record = best_for(catalog.info(entry))
    assert (None if record is None else record.name) == taken


def test_names_can_be_listed_and_looked_up() -> None:
    assert list_published("tau-*", dataset="kth") == ["tau-kth.openstl-ep100"]
    assert len(list_published(arch="tau")) == 12
    assert len(list_published(supported=False)) == 7
    assert stzoo.info("tau-mmnist").name == "tau-mmnist"
    assert isinstance(stzoo.info("tau-kth.openstl-ep100"), PublishedCheckpoint)
    with pytest.raises(UnknownModelError, match="did you mean tau-kth.openstl-ep100"):
        stzoo.info("tau-kth.openstl-ep1000")
    with pytest.raises(UnknownModelError, match="in the catalogue"):
        stzoo.info("tau-kt")
    assert not is_published_name("tau-mmnist")
    assert not is_published_name("model.safetensors")
    assert "random weights" in repr(stzoo.create("tau-taxibj.openstl-ep50"))
    with pytest.raises(SpecError, match="cannot be built: its code and its configuration are no longer in OpenSTL"):
        stzoo.create("dmvfn-taxibj.openstl-ep50")


def test_an_entry_takes_the_best_file_of_its_spec_and_any_other_is_named() -> None:
    for name, entry in catalog.entries().items():
        same = [
            record
            for record in RECORDS.values()
            if record.dataset == entry.dataset
            and record.doubt is None
            and (record.described or {}).get("arch") == entry.spec.arch
            and why_unsupported(record) is None
            and same_model(record.spec, entry.spec)
        ]
        best = min((float(record.figures["mse"]) for record in same), default=None)
        taken = best_for(entry)
        if entry.weights is None and entry.kind == "forecaster":
            assert (None if taken is None else float(taken.figures["mse"])) == best, name
        else:
            assert taken is None
    with pytest.raises(NotPublishedError, match=r"by its own name, stzoo.load\('tau-kitti-caltech.openstl-ep100'\)"):
        stzoo.load("tau-kitti-caltech")


def test_filters_take_words_and_capitals() -> None:
    assert list_published("TAU-*", dataset="KTH", arch="Tau") == ["tau-kth.openstl-ep100"]
    assert list_published(dataset="caltech") == list_published(dataset="kitti-caltech")
    assert {RECORDS[name].dataset for name in list_published(dataset="weather")} == {
        "weather-t2m", "weather-r", "weather-uv10", "weather-tcc",
    }  # fmt: skip
    assert {RECORDS[name].dataset for name in list_published(dataset="mmnist")} == {"mmnist"}
    assert stzoo.list_models("TAU-*", dataset="KTH") == ["tau-kth"]


@pytest.mark.parametrize("wrong", [None, 3, b"tau", ["tau"]])
def test_names_and_patterns_are_text(wrong: object) -> None:
    for asked in (stzoo.info, stzoo.list_published, stzoo.list_models, catalog.info):
        with pytest.raises(SpecError, match="it must be text"):
            asked(wrong)


def test_a_dict_in_place_of_a_name_is_told_how_it_becomes_a_spec() -> None:
    with pytest.raises(SpecError, match=r"it must be text; ModelSpec\.from_dict makes a spec of a dict$"):
        stzoo.create({"arch": "tau", "frames_in": 10})  # type: ignore[arg-type]


def test_unknown_names_are_answered_in_short() -> None:
    with pytest.raises(UnknownModelError, match="did you mean tau-kth"):
        stzoo.info("TAU-KTH")
    with pytest.raises(UnknownModelError, match="stzoo list --published") as caught:
        stzoo.info("zzzzzz")
    assert len(str(caught.value)) < 120


def test_the_card_says_where_tensors_are_left_out() -> None:
    assert "no forecast reads, and stzoo leaves these out" in str(RECORDS["convlstm-mmnist-paper.openstl-ep200"])
    assert "leaves these out" not in str(RECORDS["tau-kth.openstl-ep100"])
    for record in RECORDS.values():
        if why_unsupported(record) is None:
            assert record.leaves_out == (unread(record.spec) > 0)
