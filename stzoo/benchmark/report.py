"""What `stzoo benchmark` found. The fields are the keys of its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from stzoo import html


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it was measured, and the best that this machine did meanwhile, with the same number of threads.

    Attributes:
        processor: the name of the processor, or of the GPU if that was used.
        device: "cpu" or "cuda".
        threads: threads of torch.
        waiting: how they wait for one another, in words, as `stzoo.threads` decided.
        system, python, torch, stzoo: versions.
        peak_tflops: TFLOP/s of the fastest matrix product of a few sizes, by precision.
        peak_size: rows of the square matrices of that product, by precision.
        copy_gb_per_second: GB/s of a large copy, where bytes read and bytes written both count.
    """

    processor: str
    device: str
    threads: int
    waiting: str
    system: str
    python: str
    torch: str
    stzoo: str
    peak_tflops: dict[str, float]
    peak_size: dict[str, int]
    copy_gb_per_second: float


@dataclass(frozen=True, kw_only=True)
class PlainFigures:
    """The plain float32 module with the same weights on the same clips, timed in turns with the model.

    Attributes:
        ratio_median, ratio_p10, ratio_p90: median, 10th and 90th percentile of the time of a plain pass divided by that
            of a neighbouring pass of the model: how many times as fast the model is.
        difference: the largest abs(model - plain) divided by the largest abs(plain), of forecasts from noise; None if
            it is not finite.
        difference_rms: the root mean square of model - plain, divided by that of plain; None if it is not finite.
        latency_median_ms, latency_p90_ms, clips_per_second, achieved_tflops, peak_share, bytes_per_pass, intensity:
            as in `BenchmarkReport`; the share is of the float32 peak.
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
        """By how much the answers differ, in words."""
        if self.difference is None or self.difference_rms is None:
            return "no finite number"
        return f"{self.difference:.1e} of the largest value; RMS {self.difference_rms:.1e} of theirs"


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """Figures of a model on this machine, as both were during the run.

    Attributes:
        model: the source that was opened.
        trained: False for random weights.
        parameters: how many parameters the module has.
        precision: "float32" or "bfloat16", also where "auto" was asked for.
        backend: "torch" or "onnxruntime", also where "auto" was asked for.
        batch: clips in one pass.
        frames_in, steps: frames of each clip that are read, and that are forecast.
        passes: how many passes were timed.
        latency_median_ms, latency_p90_ms: milliseconds of one pass, from normalised tensors to frames: the median and
            the 90th percentile.
        graph_latency_median_ms: of the same pass as a CUDA graph; None if it cannot be captured or is no faster.
        clips_per_second: batch / median latency.
        macs_per_clip: multiply-accumulates in convolutions and matrix products of the plain module.
        achieved_tflops: 2 * macs_per_clip * clips_per_second, in TFLOP/s.
        peak_share: achieved_tflops divided by the measured peak in that precision.
        bytes_per_pass: bytes that a pass moves at least: it reads weights and clips once, and writes frames once.
        intensity: floating-point operations for each of these bytes.
        memory_above_import_mib, memory_mib: peak resident memory of a fresh process that makes one pass, in MiB:
            beyond what it had after importing torch and stzoo, and in all.
        cuda_memory_mib: torch's peak memory on the GPU, in MiB; None on the CPU.
        import_stzoo_ms, import_torch_ms: milliseconds of the bare imports in a fresh process.
        first_forecast_ms: milliseconds from then to the first answer.
        stream_20_mib, stream_1000_mib: peak resident memory of processes that stream so many frames, in MiB; None
            without `--stream`.
        plain: the plain module; None without `--against plain`.
        machine: where it was measured.
        command: the command that prints the same figures again.
    """

    model: str
    trained: bool
    parameters: int
    precision: str
    backend: str
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
    plain: PlainFigures | None
    machine: Machine
    command: str

    def to_json(self) -> str:
        """The report as JSON text: one object with the attributes as keys, indented by two spaces."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def __str__(self) -> str:
        return "\n".join([*self._head, *(f"  {name:<28}{value}" for name, value in self._rows())])

    def _repr_html_(self) -> str:
        """What a notebook shows: the same as the text."""
        return html.facts("\n".join(self._head), self._rows())

    @property
    def _head(self) -> tuple[str, str]:
        """What was measured, and where."""
        m, clips = self.machine, f"{self.batch} clip{'s' if self.batch > 1 else ''}"
        weights = "" if self.trained else ", random weights"
        return (
            f"{self.model}{weights}: {clips} of {self.frames_in} frames -> {self.steps}, in {self.precision}"
            f"{' by ONNX Runtime' if self.backend == 'onnxruntime' else ''}, {self.passes} passes",
            f"{m.processor}, {m.threads} thread{'s' if m.threads > 1 else ''}, torch {m.torch}",
        )

    def _rows(self) -> list[tuple[str, str]]:
        """What each figure is, and the figure."""
        m, size = self.machine, self.machine.peak_size[self.precision]
        peak = f"{m.peak_tflops[self.precision]:.3f} TFLOP/s"
        rows = [
            ("one pass, median (p90)", f"{self.latency_median_ms:.1f} ms ({self.latency_p90_ms:.1f})"),
            ("throughput", f"{self.clips_per_second:.2f} clips/s"),
            ("work", f"{self.macs_per_clip / 1e9:.3f} GMAC a clip: {self.achieved_tflops:.4f} TFLOP/s"),
            (f"of the {self.precision} peak", f"{self.peak_share:.1%} of {peak}, a product of {size} by {size} here"),
            ("intensity", f"{self.intensity:.0f} FLOP a byte at most; a large copy: {m.copy_gb_per_second:.1f} GB/s"),
            ("peak memory", f"{self.memory_mib:.0f} MiB, {self.memory_above_import_mib:.0f} beyond torch and stzoo"),
            ("import stzoo, import torch", f"{self.import_stzoo_ms:.0f} ms, {self.import_torch_ms:.0f} ms"),
            ("first forecast after that", f"{self.first_forecast_ms:.0f} ms"),
            ("how threads wait", m.waiting),
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
        return rows
