"""What this machine can do."""

from functools import cache
from pathlib import Path


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux lists of the first processor, such as "avx512_bf16"; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return frozenset()
    words = next((line.split(":")[1] for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(words.split())
