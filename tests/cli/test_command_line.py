"""The command line as a whole: its commands, its help, and how bad input ends."""

import argparse
import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stzoo.cli import main
from stzoo.cli.main import build_parser
from stzoo.forecaster import Forecaster
from stzoo.metrics import DEFINITIONS
from stzoo.scale import forecast_archive

MEANINGS = {  # placeholders that need no word of their own: the help names what they stand for
    "C": "channels", "CHECKPOINT": "checkpoint", "CODEC": "codec", "DEST": "folder", "DIR": "folder", "FILE": "file",
    "FOLDER": "folder", "FORMAT": "format", "H": "hours", "INPUT": "frames", "M": "minutes", "MODEL": "model",
    "N": "number", "NAME": "name", "ORIGIN": "project", "OUT": "where", "OUT.png": "file", "RECIPE": "recipe",
    "REPORT.json": "file", "RUN": "run folder", "RUN0": "run folder", "SOURCE": "a folder", "STEPS": "numbers",
    "SUFFIX": "suffix", "TEXT": "", "URL": "address", "hf://ORG": "ORG",
}  # fmt: skip


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """This parser and those of all commands and actions below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


PARSERS = {parser.prog: parser for parser in parsers(build_parser())}
COMMANDS = [prog for prog in PARSERS if prog not in ("stzoo", "stzoo catalog", "stzoo published")]


@pytest.mark.parametrize("prog", PARSERS)
def test_every_option_is_explained_and_so_is_its_placeholder(prog: str) -> None:
    parser = PARSERS[prog]
    assert parser.description
    assert "usage: stzoo" in parser.format_help()  # no stray % in a help text
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert {choice.dest for choice in action._choices_actions} == set(action.choices)
            assert all(choice.help for choice in action._choices_actions)
            continue
        name = f"{prog} {'/'.join(action.option_strings) or action.dest}"
        assert action.help, name
        if action.nargs == 0 or action.choices is not None:
            continue
        assert isinstance(action.metavar, str), f"{name} needs a placeholder"
        word = MEANINGS.get(action.metavar, action.metavar)
        assert word in action.help, f"the help of {name} says nothing of {action.metavar}"


@pytest.mark.parametrize("prog", PARSERS)
def test_every_default_is_said(prog: str) -> None:
    for action in PARSERS[prog]._actions:
        if action.nargs == 0 or action.required or action.default in (None, [], argparse.SUPPRESS):
            continue
        assert "(default: " in (action.help or ""), f"{prog} {action.dest}"


@pytest.mark.parametrize("prog", COMMANDS)
def test_the_example_of_a_command_is_one(prog: str) -> None:
    start, example = (PARSERS[prog].epilog or "").split(" ", 1)
    assert start == "Example:"
    words = shlex.split(example)
    assert words[: len(prog.split())] == prog.split()
    assert build_parser().parse_args(words[1:]).run is PARSERS[prog].get_default("run")


def test_building_the_parser_imports_nothing_heavy() -> None:
    code = (
        "import sys; from stzoo.cli.main import build_parser; build_parser(); "
        "print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_options_are_those_of_the_functions_behind_them() -> None:
    given = vars(build_parser().parse_args(["forecast-archive", "clips", "--model", "m", "--steps", "1", "-o", "out"]))
    keywords = inspect.signature(forecast_archive).parameters
    assert given.keys() - {"run", "json"} == keywords.keys() - {"progress"}
    for name, parameter in keywords.items():
        assert name == "progress" or parameter.default in (inspect.Parameter.empty, given[name]), name
    (definition,) = (a for a in PARSERS["stzoo evaluate"]._actions if a.dest == "definition")
    assert set(definition.choices or ()) == set(DEFINITIONS)


def test_list_and_info_speak_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tau-*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"tau-mmnist", "tau-mmnist-paper"} <= {r["name"] for r in rows}
    assert main(["list", "tau-ut"]) == 0
    assert "UT-Interaction, research use" in capsys.readouterr().out
    assert main(["info", "tau-mmnist-paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["params"]["hid_t"] == 512
    assert main(["info", "tau-mmnist-paper"]) == 0
    out = capsys.readouterr().out
    assert "stzoo train tau-mmnist-paper" in out
    assert "published     tau-mmnist-paper.openstl-ep200, tau-mmnist-paper.openstl-ep2000" in out


def test_list_and_info_show_what_others_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "tau-ut"]) == 0
    assert "267 checkpoints that others published" in capsys.readouterr().out
    assert main(["list", "--published", "tau-*", "--dataset", "kth"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "tau-kth.openstl-ep100", "supported", "15.0M", "MSE", "45.32",
    ]  # fmt: skip
    assert main(["list", "--published", "d*-taxibj*"]) == 0
    assert "dmvfn-taxibj.openstl-ep50" in (out := capsys.readouterr().out)
    assert "There are 274 such files; stzoo can open 267" in out
    assert main(["list", "--published", "dmvfn-*", "--supported"]) == 2
    assert "no name matches" in capsys.readouterr().err
    assert main(["list", "tau-k*"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[:2]] == ["-", "others"]
    assert main(["info", "tau-kth"]) == 0
    taken = "none of its own; stzoo.load takes tau-kth.openstl-ep100 (OpenSTL, MSE 45.32)"
    assert taken in capsys.readouterr().out
    assert main(["info", "tau-kitti-caltech"]) == 0
    assert "tau-kitti-caltech.openstl-ep100 (OpenSTL) is not taken by itself" in capsys.readouterr().out
    assert main(["list", "--published", "--dataset", "kth", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 23
    assert {row["spec"]["frames_out"] for row in rows if row["spec"]} == {20}
    assert main(["info", "phydnet-mmnist-paper.official"]) == 0
    out = capsys.readouterr().out
    assert "mse 24.4, mae 70.3, ssim 0.947: the publisher's, not measured by us" in out
    assert "git object 90b04a76bc5865ab85f702a3c9c1f90bfca93189" in out
    assert main(["info", "tau-kitti-caltech.openstl-ep100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["figures"]["mse"], found["spec"]["params"]["hid_t"]) == ("131.1", 256)
    assert "the file's tensors decide" in found["doubt"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "tau-mnist"], "did you mean tau-mmnist"),
        (["predict", "nothing.gif", "--model", "tau-mmnist", "-o", "x.gif"], "nothing.gif"),
        (["rollout", "x", "--model", "tau-mmnist", "--steps", "3", "-o", "x.mkv"], "cannot write x.mkv"),
        (["evaluate", "swinlstm-mmnist", "--mnist", "nowhere"], "no published weights"),
        (["info", "tau-kth.openstl-ep10"], "did you mean tau-kth.openstl-ep100"),
        (["list", "--published", "zzz*"], "there are models for"),
        (["list", "--dataset", "nothing"], "there are models for"),
        (["list", "--supported"], "--supported is for --published"),
        (["train", "tau-kth.openstl-ep100", "--data", "x", "--out", "y"], "stzoo train --from tau-kth.openstl-ep100"),
        (["list", "--published", "--pretrained"], "--pretrained is for the catalogue"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--steps", "-1"], "must be positive"),
        (["train", "tau-mmnist", "--mnist", "nowhere", "--out", "x", "--minutes", "nan"], "must be positive"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    command: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("stzoo: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_has_a_card_like_that_of_a_name(
    forecaster: Forecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster.save_pretrained(tmp_path / "model")
    for source in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert main(["info", str(source)]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{source}: a model on this machine\n  architecture  {forecaster.spec.arch} (")
        assert "4 in, 4 out, 1x16x16, values in (0.0, 1.0)\n  weights       model.safetensors" in out
        assert main(["info", str(source), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["spec"] == forecaster.spec.to_dict()
    assert main(["info", str(tmp_path / "none")]) == 2
    assert "is no folder that save_pretrained wrote" in capsys.readouterr().err


def test_clips_of_ones_own_are_named_where_a_models_name_chose_another_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "tau-ut", "--data", str(tmp_path)]) == 2
    assert "for other files add --dataset clips" in capsys.readouterr().err
    assert main(["evaluate", "tau-ut", "--data", str(tmp_path), "--dataset", "ut"]) == 2
    assert "--dataset clips" not in capsys.readouterr().err
