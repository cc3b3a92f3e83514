"""How fast a forecaster runs here, what share of the machine's peak that is, and how much memory it takes.

>>> from stzoo.benchmark import Setting, benchmark
>>> report = benchmark(Setting(source="tau-mmnist"))
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stzoo.benchmark.measure import benchmark as benchmark
    from stzoo.benchmark.report import BenchmarkReport as BenchmarkReport
    from stzoo.benchmark.setting import Setting as Setting

__all__ = ["BenchmarkReport", "Setting", "benchmark"]

_HOME = MappingProxyType({"BenchmarkReport": "report", "Setting": "setting", "benchmark": "measure"})


def __getattr__(name: str) -> Any:  # imported when first used: a fresh process times the import of torch by itself
    if name not in _HOME:
        raise AttributeError(f"module 'stzoo.benchmark' has no attribute {name!r}")
    return getattr(import_module(f"stzoo.benchmark.{_HOME[name]}"), name)
