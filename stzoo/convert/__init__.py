"""Checkpoints that others published -> a folder that `stzoo.load` reads.

`torch_file` reads what torch saved and runs no code of it; `matching` finds the place of every tensor.
"""

from stzoo.convert.matching import ConvertReport, convert, origins

__all__ = ["ConvertReport", "convert", "origins"]
