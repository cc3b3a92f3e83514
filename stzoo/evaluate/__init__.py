"""Models on a test protocol -> reports: every metric, at each step and over all, with persistence beside it.

`evaluate` measures one forecaster, `compare` several on the same frames, and `evaluate_codec` a codec.
"""

from stzoo.evaluate.comparing import Comparison, ShownClip, compare
from stzoo.evaluate.measuring import evaluate, evaluate_codec, golden
from stzoo.evaluate.report import CodecReport, EvaluationReport

__all__ = [
    "CodecReport",
    "Comparison",
    "EvaluationReport",
    "ShownClip",
    "compare",
    "evaluate",
    "evaluate_codec",
    "golden",
]
