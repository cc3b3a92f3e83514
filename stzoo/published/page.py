"""The page docs/published.md: the table of all published checkpoints, supported by this version of stzoo or not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from stzoo import catalog
from stzoo.files import write_atomically
from stzoo.published.records import PublishedCheckpoint, published
from stzoo.published.support import best_for, why_unsupported

_NOTE = "<!-- Written by `stzoo published page` from the records in stzoo/published. -->"
_ABOUT = """# Checkpoints that others published, by name

`stzoo.load("tau-kth.openstl-ep100")` downloads the file from its publisher, reads its tensors and nothing else,
converts them once, and keeps the converted file. This version of stzoo can open {supported} of the {all} files below.

**None of these files could be downloaded where stzoo is developed.** Addresses, figures and configurations come from
the publishers' pages and source code, and the conversions were tried with files of the same layout that were made from
the publishers' code with random weights. So no figure below was measured by us, and a file may differ from what its
publisher says of it. What was checked of each supported one is that the model is built to the published number of
parameters, as far as no doubt is noted.

## If you have the file already

```bash
stzoo convert openstl FILE --dataset mmnist --out DIR
```

turns a checkpoint trained with OpenSTL, your own or a downloaded one, into a folder that `stzoo.load("DIR")` opens.
Tensors tell the architecture and most sizes, `--dataset` the frames and the range of their values; a Lightning file's
`hyper_parameters` tell them, too. The command prints what it assumed. `--model NAME` in place of `--dataset`, with one
of the names below, says that the file is that one: the folder then has its spec, and its publisher and address in the
card. A file in the authors' own layout (PhyDNet, MAU) takes `official` in place of `openstl`. Nothing in the file is
run. More: [architectures.md](architectures.md#checkpoints-published-by-others).

## What happens when you load one

- The file comes over https from the address that `stzoo info NAME` shows, or from a mirror named in `STZOO_MIRRORS`; an
  interrupted download goes on where it stopped.
- If the file lies in a git tree, its content must have git's object id. If nothing is known of it, the sha256 of your
  first download is kept in `$STZOO_HOME/pins`, and every later download must have it; `stzoo cache list` shows it. If
  you know the right one, `stzoo.load(NAME, sha256="...")` requires it from the start.
- Where published facts contradict each other, the tensors in the file decide. `stzoo info NAME` says where that is so.
- The model is tried on two small drawn clips, and a warning says if it does not behave as a forecaster. `stzoo
  published verify NAME` does so thoroughly. With the data at hand, `stzoo evaluate NAME --data DIR --definition
  openstl` computes the metrics as OpenSTL's tables do.
- Nobody but the publisher answers for the weights. OpenSTL states a licence for its code, not for its weights.

## Names

{rule}

These entries of our catalogue have no weights of their own and take a published file, and say so:

{taken}

## What the publishers' loaders fed the models

{protocols}

WeatherBench's models take and give standardised values, because the means and deviations of their training are stored
nowhere. For TaxiBJ the smallest and the largest flow of the training part are needed.
"""
_RULE = (
    "MODEL-DATASET[-VARIANT].PUBLISHER[-epEPOCHS]. MODEL is the architecture, with the translator or the size after it "
    "where there are several. VARIANT tells specs apart that would otherwise have one name: `paper` stands on Moving "
    "MNIST, where the entries of our own sizes have the plain names, and `patch2` is a PredRNN on KTH with smaller "
    "patches than our entry's. If the catalogue has an entry with the name before the dot, that entry has this very "
    "spec."
)


def page() -> str:
    """The whole page, in Markdown."""
    records = list(published().values())
    reasons = {record.name: why_unsupported(record) for record in records}
    taken = [(name, best_for(entry)) for name, entry in catalog.entries().items() if entry.weights is None]
    protocols = {record.dataset: record.protocol for record in records}
    about = _ABOUT.format(
        supported=sum(reason is None for reason in reasons.values()),
        all=len(records),
        rule=_wrapped(_RULE),
        taken="\n".join(f"- `{name}`: `{record.name}`" for name, record in taken if record is not None),
        protocols="\n".join(_wrapped(f"- **{dataset}**: {protocol}", "  ") for dataset, protocol in protocols.items()),
    )
    tables = [_table(dataset, [r for r in records if r.dataset == dataset], reasons) for dataset in protocols]
    return "\n".join([_NOTE, about, *tables])


def write_page(path: Path) -> Path:
    """Write the page, and return its path. Raises `OSError` if it cannot be written."""
    write_atomically(path, page().encode())
    return path


def _wrapped(text: str, later: str = "") -> str:
    """The text in lines of at most 120 characters, all but the first of which begin with `later`."""
    return fill(text, 120, subsequent_indent=later, break_on_hyphens=False)


def _table(dataset: str, records: Iterable[PublishedCheckpoint], reasons: dict[str, str | None]) -> str:
    lines = [
        f"## {dataset}\n",
        "| name | parameters | MSE, by its publisher | supported | what is known |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        reason = reasons[record.name]
        known = "; ".join(text for text in (reason, record.doubt, *record.notes) if text)
        lines.append(
            f"| `{record.name}` | {record.parameters or ''} | {record.figures.get('mse', '')} "
            f"| {'yes' if reason is None else 'not yet'} | {known} |"
        )
    return "\n".join([*lines, ""])
