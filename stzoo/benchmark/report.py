"""What `stzoo benchmark` found: the fields are the keys of its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured, and the best that this machine did meanwhile, with the same threads.

    Attributes:
        processor: its name, of the GPU where that was used.
        device: "cpu" or "cuda".
        threads: of torch.
        system, python, torch, stzoo: versions.
        peak_tflops: of the fastest matrix product of a few sizes, by precision. peak_size: of its square matrices.
        copy_gb_per_second: bytes read and written by a large copy.
    """

    processor: str
    device: str
    threads: int
    system: str
    python: str
    torch: str
    stzoo: str
    peak_tflops: dict[str, float]
    peak_size: dict[str, int]
    copy_gb_per_second: float


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The plain float32 module with the same weights on the same clips, its passes in turns with the model's.

    Attributes:
        ratio_median, ratio_p10, ratio_p90: of plain / model, pass by pass: how many times as fast the model is.
        difference: the largest of abs(model - plain), of the largest of abs(plain), on noise; None if not finite.
        difference_rms: of model - plain, of that of plain; None if not finite.
        latency_median_ms, latency_p90_ms, clips_per_second, achieved_tflops, peak_share, bytes_per_pass, intensity:
            as in `Report`; the share is of the float32 peak.
    """

    ratio_median: float
    ratio_p10: float
    ratio_p90: float
    difference: float | None
    difference_rms: float | None
    latency_median_ms: float
    latency_p90_ms: float
    clips_per_second: float
    achieved_tflops: float
    peak_share: float
    bytes_per_pass: int
    intensity: float

    @property
    def differs(self) -> str:
        """By how much, in words."""
        if self.difference is None or self.difference_rms is None:
            return "no finite number"
        return f"{self.difference:.1e} of the largest value; RMS {self.difference_rms:.1e} of theirs"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of this machine, as it was during the run.

    Attributes:
        model: the source that was opened. trained: False for random weights. parameters: of the module.
        precision: "float32" or "bfloat16"; what "auto" stood for.
        batch, frames_in, steps: clips in one pass, frames of each that are read, and that are forecast.
        passes: that were timed.
        latency_median_ms, latency_p90_ms: of one pass, normalised tensors in, frames out.
        graph_latency_median_ms: of the same pass as a CUDA graph, where it can be captured and is faster.
        clips_per_second: batch / median latency.
        macs_per_clip: multiply-accumulates in convolutions and matrix products of the plain module.
        achieved_tflops: 2 * macs_per_clip * clips_per_second. peak_share: of the measured peak in that precision.
        bytes_per_pass: at least: weights and clips read once, frames written once. intensity: FLOP per such byte.
        memory_above_import_mib, memory_mib: peak resident memory of a fresh process that makes one pass, beyond what
            it had after importing torch and stzoo, and in all. cuda_memory_mib: torch's peak on the GPU.
        import_stzoo_ms, import_torch_ms: of the bare imports. first_forecast_ms: from there to the first answer.
        stream_20_mib, stream_1000_mib: peak resident memory of processes that stream so many frames, with `--stream`.
        plain: with `--against plain`.
        command: what prints the same figures again.
    """

    model: str
    trained: bool
    parameters: int
    precision: str
    batch: int
    frames_in: int
    steps: int
    passes: int
    latency_median_ms: float
    latency_p90_ms: float
    graph_latency_median_ms: float | None
    clips_per_second: float
    macs_per_clip: int
    achieved_tflops: float
    peak_share: float
    bytes_per_pass: int
    intensity: float
    memory_above_import_mib: float
    memory_mib: float
    cuda_memory_mib: float | None
    import_stzoo_ms: float
    import_torch_ms: float
    first_forecast_ms: float
    stream_20_mib: float | None
    stream_1000_mib: float | None
    plain: Plain | None
    machine: Machine
    command: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def __str__(self) -> str:
        m, size = self.machine, self.machine.peak_size[self.precision]
        peak = f"{m.peak_tflops[self.precision]:.3f} TFLOP/s"
        clips = f"{self.batch} clip{'s' if self.batch > 1 else ''}"
        rows = [
            ("one pass, median (p90)", f"{self.latency_median_ms:.1f} ms ({self.latency_p90_ms:.1f})"),
            ("throughput", f"{self.clips_per_second:.2f} clips/s"),
            ("work", f"{self.macs_per_clip / 1e9:.3f} GMAC a clip: {self.achieved_tflops:.4f} TFLOP/s"),
            (f"of the {self.precision} peak", f"{self.peak_share:.1%} of {peak}, a product of {size} by {size} here"),
            ("intensity", f"{self.intensity:.0f} FLOP a byte at most; a large copy: {m.copy_gb_per_second:.1f} GB/s"),
            ("peak memory", f"{self.memory_mib:.0f} MiB, {self.memory_above_import_mib:.0f} beyond torch and stzoo"),
            ("import stzoo, import torch", f"{self.import_stzoo_ms:.0f} ms, {self.import_torch_ms:.0f} ms"),
            ("first forecast after that", f"{self.first_forecast_ms:.0f} ms"),
        ]
        if self.graph_latency_median_ms is not None:
            rows.insert(1, ("the same as a CUDA graph", f"{self.graph_latency_median_ms:.1f} ms"))
        if self.cuda_memory_mib is not None:
            rows.append(("peak memory of the GPU", f"{self.cuda_memory_mib:.0f} MiB"))
        if self.stream_20_mib is not None:
            rows.append(("streaming 20, 1,000 frames", f"{self.stream_20_mib:.0f} MiB, {self.stream_1000_mib:.0f} MiB"))
        if self.plain is not None:
            p = self.plain
            rows += [
                ("the plain module, float32", f"{p.latency_median_ms:.1f} ms ({p.latency_p90_ms:.1f})"),
                ("how many times as fast", f"{p.ratio_median:.2f} (p10 {p.ratio_p10:.2f}, p90 {p.ratio_p90:.2f})"),
                ("answers on noise differ by", p.differs),
            ]
        weights = "" if self.trained else ", random weights"
        head = [
            f"{self.model}{weights}: {clips} of {self.frames_in} frames -> {self.steps}, in {self.precision}, "
            f"{self.passes} passes",
            f"{m.processor}, {m.threads} thread{'s' if m.threads > 1 else ''}, torch {m.torch}",
        ]
        return "\n".join(head + [f"  {name:<28}{value}" for name, value in rows])
