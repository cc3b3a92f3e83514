"""An architecture of another package, which knows stzoo and which stzoo does not know: it does all that ours do.

It is the example of docs/extending.md, taken from there and registered by an entry point as pip does it.
"""

import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stzoo
from stzoo.convert import convert, origins
from stzoo.data.digits import drawn_digits
from stzoo.data.mmnist import MovingDigits
from stzoo.errors import SpecError
from stzoo.models import _OWN, architectures, build
from stzoo.models.contract import Architecture
from stzoo.spec import ModelSpec
from stzoo.train import Recipe, train
from stzoo.train.objectives import check, objective
from stzoo.train.recompute import recomputing
from stzoo.unroll import unroll

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text("utf-8")
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")}
BLOCKS = re.findall(  # the architecture, its use, a layout of published tensors, and its reader
    r"^```python\n(.*?)^```$", SECTIONS["An architecture"] + SECTIONS["A checkpoint"], re.MULTILINE | re.DOTALL
)
NAME = "persistence-plus"
# the same without the traits that have a default, and with a layout of published tensors
OTHERS = """
from dataclasses import replace
from torch import nn
from persistence_plus import ARCHITECTURE
{layout}
BARE = replace(ARCHITECTURE, name="bare", colour=None, recompute=())
WRONG = replace(ARCHITECTURE, name="wrong", recompute=(nn.LSTM,))
CONVERTED = replace(ARCHITECTURE, name="converted", layouts={{"elsewhere": LAYOUT}})
TAKEN = replace(ARCHITECTURE, name="tau")
NO_ARCHITECTURE = "tau"
"""
RECIPE = Recipe(
    dataset="mmnist", minutes=1, batch=2, precision="float32", validate_every=3, validation_clips=2, warmup=0.0
)


def installed(folder: Path, *entries: str) -> None:
    """What pip leaves of a package that has these entry points: its modules, and a dist-info folder."""
    (folder / "persistence_plus.py").write_text(BLOCKS[0], "utf-8")
    (folder / "others.py").write_text(OTHERS.format(layout=BLOCKS[2] + BLOCKS[3]), "utf-8")
    info = folder / "persistence_plus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: persistence-plus\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("\n".join(["[stzoo.architectures]", *entries, ""]), "utf-8")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, into which a test may install. Afterwards nothing of it is known any more."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    architectures.cache_clear()
    yield folder
    architectures.cache_clear()
    for name in ("persistence_plus", "others"):
        sys.modules.pop(name, None)


@pytest.fixture
def toy(package: Path) -> Architecture:
    installed(
        package,
        f"{NAME} = persistence_plus:ARCHITECTURE",
        "bare = others:BARE",
        "wrong = others:WRONG",
        "converted = others:CONVERTED",
    )
    return architectures()[NAME]


def spec_of(arch: str = NAME, channels: int = 1, side: int = 16) -> ModelSpec:
    return ModelSpec(
        arch=arch, frames_in=4, frames_out=4, channels=channels, height=side, width=side, params={"hidden": 8}
    )  # fmt: skip


def clips(channels: int = 1) -> Tensor:
    return torch.rand(2, 4, channels, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_is_one_file_of_some_thirty_lines() -> None:
    lines = [
        line for line in BLOCKS[0].splitlines() if line.strip() and not line.lstrip().startswith(("import", "from"))
    ]
    assert len(lines) < 40


def test_the_page_runs_as_written(toy: Architecture, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[1], str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "(10, 24, 32) uint8\n"


def test_forecasts(toy: Architecture) -> None:
    model = stzoo.create(spec_of())
    past = np.random.default_rng(0).integers(0, 256, (6, 20, 24), np.uint8)  # any size, since its stride is 1
    assert model.predict(past).shape == (4, 20, 24)
    rolled = model.rollout(past, 9)
    assert np.array_equal(rolled, np.stack(list(islice(model.stream(past), 9))))
    with torch.no_grad():
        plain = torch.stack(list(unroll(model.module, model.spec, clips(), 9)), 1)
    torch.testing.assert_close(model.rollout(clips(), 9), plain.clamp(0, 1))
    with pytest.raises(SpecError, match=r"spec\.params\.hidden is 0"):
        stzoo.create(spec_of(), hidden=0)


def test_trains_and_is_saved(toy: Architecture, tmp_path: Path) -> None:
    data = [MovingDigits(drawn_digits(), seed, 1 << 20, 4, 4) for seed in (1, 2)]
    best = train(spec_of(side=64), RECIPE, *data, tmp_path / "run", steps=3, device="cpu", progress=False)
    model = stzoo.load(best)
    model.save_pretrained(tmp_path / "saved")
    again = stzoo.load(tmp_path / "saved")
    assert again.spec == model.spec == spec_of(side=64)
    assert all(
        torch.equal(tensor, again.module.state_dict()[name]) for name, tensor in model.module.state_dict().items()
    )
    assert not torch.equal(model.module.leave.weight, build_seeded().leave.weight)


def build_seeded() -> Any:
    torch.manual_seed(RECIPE.seed)
    return build(spec_of(side=64))


def gradients(form: Any, module: Any, recipe: Recipe) -> tuple[list[Tensor], int]:
    """The gradients of one step, and the bytes that it holds between forward and backward pass."""
    held: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    module.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = objective(form, module, spec_of(), recipe, clips(), clips() ** 2, 0.0)
    loss.backward()
    return [p.grad.clone() for p in module.parameters()], sum(held.values())


def test_trains_in_less_memory_where_it_states_its_parts(toy: Architecture) -> None:
    recipe = Recipe(dataset="mmnist", minutes=1, precision="float32", checkpoint=True)
    module = build(spec_of())
    check(module, spec_of(), recipe)
    plain, most = gradients(module, module, recipe)
    found, held = gradients(recomputing(module, spec_of()), module, recipe)
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(one, other)
    assert held < most
    for arch, reason in (("bare", "does not state what to recompute"), ("wrong", "has no LSTM")):
        spec = spec_of(arch)
        with pytest.raises(SpecError, match=f"checkpoint is true, but this {arch} {reason}"):
            check(build(spec, "meta"), spec, recipe)
        with pytest.raises(SpecError, match=f"checkpoint is true, but this {arch} {reason}"):
            recomputing(build(spec), spec)


def test_is_adapted(toy: Architecture, tmp_path: Path) -> None:
    for arch, words in ((NAME, "averaged over channels"), ("bare", "begins anew")):
        old = stzoo.create(spec_of(arch, channels=3))
        old.save_pretrained(tmp_path / arch)
        new = stzoo.load(tmp_path / arch, adapt={"channels": 1})
        assert new.report.adapted
        assert all(words in what for what in new.report.adapted)
        if arch == NAME:  # frames alike in all channels are answered with the mean of the old answer
            gray = clips()
            first = next(unroll(old.module, old.spec, gray.expand(-1, -1, 3, -1, -1)))
            torch.testing.assert_close(next(unroll(new.module, new.spec, gray)), first.mean(1, keepdim=True))


@pytest.mark.slow
def test_is_exported(toy: Architecture, tmp_path: Path) -> None:
    model = stzoo.create(spec_of())
    model.export("torch-export", tmp_path / "toy.pt2", steps=6)
    found = torch.export.load(tmp_path / "toy.pt2").module()(clips())
    with torch.no_grad():
        wanted = torch.stack(list(unroll(model.module, model.spec, clips(), 6)), 1)
    torch.testing.assert_close(found, wanted)


def test_predicts_latents(toy: Architecture) -> None:
    codec = {"arch": "vqvae", "params": {"width": 8, "residual_layers": 0, "codes": 8, "dim": 4}}
    params = {"codec": codec, "predictor": {"arch": NAME, "params": {"hidden": 8}}}
    spec = ModelSpec(arch="modular", frames_in=4, frames_out=4, channels=1, height=16, width=16, params=params)
    model = stzoo.create(spec)
    assert isinstance(model.module.predictor, toy.module)  # type: ignore[arg-type]
    assert model.rollout(clips(), 6).shape == (2, 6, 1, 16, 16)
    check(model.module, spec, Recipe(dataset="mmnist", minutes=1, checkpoint=True))


def test_published_tensors_of_it_are_converted(toy: Architecture, tmp_path: Path) -> None:
    assert origins() == ("elsewhere", "official", "openstl")
    spec = spec_of("converted")
    ours: dict[str, Tensor] = build(spec).state_dict()
    theirs = {k.replace("enter", "net.encoder").replace("leave", "net.head"): t for k, t in ours.items()}
    torch.save(theirs | {"net.unused.weight": torch.zeros(1)}, tmp_path / "their.pth")
    report = convert("elsewhere", tmp_path / "their.pth", spec, tmp_path / "out")
    assert report.unused == ("net.unused.weight",)
    frames = {"channels": 1, "height": 16, "width": 16, "frames_out": 4}
    assert convert("elsewhere", tmp_path / "their.pth", None, tmp_path / "told", known=frames).spec == spec
    for out in ("out", "told"):
        state = stzoo.load(tmp_path / out).module.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in ours.items())
    with pytest.raises(SpecError, match=r"no tensor of .*their\.pth.* tells channels"):
        convert("elsewhere", tmp_path / "their.pth", None, tmp_path / "untold")
    with pytest.raises(SpecError, match="layouts of openstl are known for .*tau"):
        convert("openstl", tmp_path / "their.pth", spec, tmp_path / "other")
    with pytest.raises(SpecError, match="the origin is 'nowhere'; it may be elsewhere, official, openstl"):
        convert("nowhere", tmp_path / "their.pth", spec, tmp_path / "other")


def test_what_it_does_not_state_is_refused_where_it_is_asked_for(toy: Architecture) -> None:
    for change, message in (
        ({"sampling": "scheduled"}, "only recurrent architectures"),
        ({"sampling": "parallel"}, "only tctn computes"),
        ({"moment_weight": 1.0}, "is for phydnet"),
        ({"decouple_weight": 1.0}, "needs a predrnn"),
        ({"cached_clips": 2}, "is for modular"),
    ):
        with pytest.raises(SpecError, match=message):
            check(build(spec_of()), spec_of(), Recipe(dataset="mmnist", minutes=1, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("broken = no_such_module:ARCHITECTURE", "No module named"),
        ("absent = persistence_plus:ABSENT", "ABSENT"),
        ("other = others:NO_ARCHITECTURE", "it is a str; it must be"),
        ("taken = others:TAKEN", "the name 'tau' is taken"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_left_out(entry: str, reason: str, package: Path) -> None:
    installed(package, entry, f"{NAME} = persistence_plus:ARCHITECTURE")
    with pytest.warns(UserWarning, match=f"the architecture {entry.split()[0]} .* is left out: .*{reason}"):
        found = architectures()
    assert NAME in found
    assert found["tau"].fast_form  # ours
    assert found.keys() == {*_OWN, NAME}


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"kind": "recurrent"}, "kind is 'recurrent'; it must be one of block, sequential"),
        ({"colour": "middle"}, "colour is 'middle'"),
        ({"reads_clips": True}, "reads_clips is stated by x, which is block; only a sequential one has it"),
    ],
)
def test_traits_that_mean_nothing_are_refused(traits: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture(**{"name": "x", "kind": "block", "config": dict, "module": torch.nn.Identity} | traits)


def test_a_module_that_is_not_of_its_kind_is_refused() -> None:
    module = torch.nn.Identity()
    for kind, missing in (("block", "no stride"), ("sequential", "no stride, no initial_state, no step")):
        architecture = Architecture(name="x", kind=kind, config=dict, module=torch.nn.Identity)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match=f"x is stated to be {kind}, but its module has {missing}"):
            architecture.check_module(module)
