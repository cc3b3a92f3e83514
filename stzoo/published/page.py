"""The page docs/published.md: the table of all published checkpoints, supported by this version of stzoo or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from textwrap import fill

from stzoo import catalog
from stzoo.data import DATASETS
from stzoo.files import write_atomically
from stzoo.hub.card import count_parameters
from stzoo.published.records import PublishedCheckpoint, best_for, published
from stzoo.published.support import why_unsupported
from stzoo.spec import ModelSpec

_NOTE = "<!-- Written by `stzoo published page` from the records in stzoo/published. -->"
_ABOUT = """# Checkpoints that others published, by name

`stzoo.load("tau-kth.openstl-ep100")` downloads the file from its publisher, reads its tensors and nothing else,
converts them once, and keeps the converted file. This version of stzoo can open {supported} of the {all} files below;
{not_yet}

{contents}

**None of these files could be downloaded where stzoo is developed.** Addresses, figures and configurations come from
the publishers' pages and source code, and the conversions were tried with files of the same layout that were made from
the publishers' code with random weights. So no figure below was measured by us, and a file may differ from what its
publisher says of it. What was checked of each supported one is that the model is built to the published number of
parameters, but for tensors that nothing reads, and as far as no doubt is noted.

## If you have the file already

```bash
stzoo convert openstl FILE --dataset mmnist --out DIR
```

turns a checkpoint trained with OpenSTL, your own or a downloaded one, into a folder that `stzoo.load("DIR")` opens.
Tensors tell the architecture and most sizes, `--dataset` the frames and the range of their values; a Lightning file's
`hyper_parameters` tell them, too. The command prints what it assumed. A file of a model's authors, in the layout of
their own code, takes `official` in place of `openstl`.
[architectures.md](architectures.md#checkpoints-published-by-others) says for which models, and more. Nothing in the
file is run.

`--model NAME` in place of `--dataset`, with one of the names below, says that the file is that one. It is then read as
`stzoo.load(NAME)` reads it, and the folder has its publisher, address and licence in the card. A file that has not the
content that is known under this name, by git or by a sha256 that is kept on this machine, is refused; where nothing is
known, the command says that it takes your word. Do not name a file of your own so, though it may fit.

## Files without a name here

The authors of PFGNet publish six checkpoints in the repository `fhjd123/PFGNet` of the Hugging Face hub:
`pfg_mmnist.ckpt`, `pfg_mfmnist.ckpt`, `pfg_taxibj.ckpt`, `pfg_kth20.ckpt`, `pfg_kth40.ckpt` and `pfg_human.ckpt`. They
have no names here, because neither a hash nor a revision of them is known. Download one and convert it; its tensors
tell the architecture and its sizes:

```bash
stzoo convert openstl pfg_taxibj.ckpt --dataset taxibj --out DIR
```

`--dataset` is `mmnist`, `mfmnist`, `taxibj`, `kth` or `human`; for `pfg_kth40.ckpt` add `--frames-out 40`.

## What happens when you load one

- The file comes over https from the address that `stzoo info NAME` shows; an interrupted download goes on where it
  stopped. If that address does not have it, or sends something else (a web page, a pointer of git-lfs, half a file),
  the mirrors are asked. No redirect from a public host into the private network of your machine is followed.
- If the file lies in a git tree, its content must have git's object id. If nothing is known of it, the sha256 of your
  first download is kept in `$STZOO_HOME/pins`, and every later download must have it; `stzoo cache list` shows it. If
  you know the right one, `stzoo.load(NAME, sha256="...")` requires it from the start. A sha256 that was lost is taken
  from the converted file, which keeps it.
- Where published facts contradict each other, the tensors in the file decide. `stzoo info NAME` says where that is so.
- The model is tried on two small drawn clips, and a warning says if it does not behave as a forecaster. `stzoo
  published verify NAME` does so thoroughly. Neither shows that a model is as good as its publisher says.
- Nobody but the publisher answers for the weights. OpenSTL states a licence for its code, not for its weights. A model
  that is saved or sent to a hub keeps its publisher, address, sha256 and licence, in its file and in its card.

## Mirrors and machines without a network

`STZOO_MIRRORS` names folders with https addresses, separated by white space. The publisher's address is asked first,
then each mirror in order. A mirror has the publishers' files under their own names, in one folder:
`tau-kth.openstl-ep100` is fetched from `{example}`. These names are all different.

Or fetch the file on another machine and convert it: `stzoo convert openstl FILE --model NAME --out DIR`, then
`stzoo.load("DIR")`. That accepts what `stzoo.load(NAME)` accepts. A folder `published` below `$STZOO_HOME` that was
filled on one machine works on another one, too.

## Names

{rule}

torch.hub has the same names with `_` for each hyphen and dot:
`torch.hub.load(REPOSITORY, "tau_kth_openstl_ep100")`. `e3dlstm-public` is the variant of E3D-LSTM that its published
code computes, which differs from the paper's ([architectures.md](architectures.md)).

These entries of our catalogue have no weights of their own and take a published file, and say so:

{taken}

## Measuring with your own data

`stzoo evaluate NAME --data DIR --definition openstl` computes the metrics as OpenSTL's tables do. By its name alone it
reads the data of models of {by_name}; for those of {by_clips}, give your own clips with `--dataset clips`, scaled as
the next section says. A published model can also be trained further: `stzoo train --from NAME`
([training.md](training.md)).

## What the publishers' loaders fed the models

{protocols}

WeatherBench's models take and give standardised values, because the means and deviations of their training are stored
nowhere. For TaxiBJ the smallest and the largest flow of the training part are needed.

In the tables below, "starred in its table" means that OpenSTL marks the row with a star. Published counts of ConvLSTM,
PredRNN++ and MIM include tensors that no forecast reads. stzoo leaves these out; the last column says how many
parameters are built.
"""
_RULE = (
    "MODEL-DATASET[-VARIANT].PUBLISHER[-epEPOCHS]. MODEL is the architecture, with the translator or the size after it "
    "where there are several. VARIANT tells specs apart that would otherwise have one name: `paper` stands on Moving "
    "MNIST, and on TAU for Moving Fashion-MNIST, where the entries of our own sizes have the plain names; `patch2` "
    "is a PredRNN on KTH with smaller patches than our entry's. If the catalogue has an entry with the name before the "
    "dot, that entry has this very spec."
)


def page() -> str:
    """The whole page, in Markdown."""
    records = list(published().values())
    reasons = {record.name: why_unsupported(record) for record in records}
    taken = [(name, best_for(entry)) for name, entry in catalog.entries().items() if entry.weights is None]
    protocols = {record.dataset: record.protocol for record in records}
    readable, other = ([dataset for dataset in protocols if (dataset in DATASETS) is named] for named in (True, False))
    missing = sorted({record.method for record in records if reasons[record.name] is not None})
    about = _ABOUT.format(
        not_yet=_wrapped(f"the others need an architecture that it does not have yet: {', '.join(missing)}."),
        contents=_contents(protocols),
        example=f"MIRROR/{published()['tau-kth.openstl-ep100'].url.rpartition('/')[2]}",
        by_name=", ".join(readable),
        by_clips=", ".join(other),
        supported=sum(reason is None for reason in reasons.values()),
        all=len(records),
        rule=_wrapped(_RULE),
        taken="\n".join(f"- `{name}`: `{record.name}`" for name, record in taken if record is not None),
        protocols="\n".join(_wrapped(f"- **{dataset}**: {protocol}", "  ") for dataset, protocol in protocols.items()),
    )
    tables = [_table(dataset, [r for r in records if r.dataset == dataset], reasons) for dataset in protocols]
    return "\n".join([_NOTE, about, *tables])


def _contents(datasets: Iterable[str]) -> str:
    """Links to every heading of the page."""
    headings = [line.removeprefix("## ") for line in _ABOUT.splitlines() if line.startswith("## ")]
    links = [f"[{title}](#{re.sub(r'[^a-z0-9 -]', '', title.lower()).replace(' ', '-')})" for title in headings]
    tables = ", ".join(f"[{dataset}](#{dataset})" for dataset in datasets)
    return "\n".join(f"- {line}" for line in [*links, _wrapped(f"The files, by dataset: {tables}", "  ")])


def write_page(path: Path) -> Path:
    """Write the page, and return its path. Raises `OSError` if it cannot be written."""
    write_atomically(path, page().encode())
    return path


def _wrapped(text: str, later: str = "") -> str:
    """The text in lines of at most 120 characters, all but the first of which begin with `later`."""
    return fill(text, 120, subsequent_indent=later, break_on_hyphens=False)


def _built(record: PublishedCheckpoint) -> int:
    return _count(json.dumps(record.spec.to_dict()))


@cache
def _count(spec: str) -> int:
    return count_parameters(ModelSpec.from_dict(json.loads(spec)))


def _table(dataset: str, records: Iterable[PublishedCheckpoint], reasons: dict[str, str | None]) -> str:
    lines = [
        f"## {dataset}\n",
        "| name | parameters | MSE, by its publisher | supported | what is known |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        reason = reasons[record.name]
        built = f"{_built(record):,} parameters are built" if record.leaves_out and reason is None else None
        known = "; ".join(text for text in (reason, record.doubt, *record.notes, built) if text)
        lines.append(
            f"| `{record.name}` | {record.parameters or ''} | {record.figures.get('mse', '')} "
            f"| {'yes' if reason is None else 'not yet'} | {known} |"
        )
    return "\n".join([*lines, ""])
