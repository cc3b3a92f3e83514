"""What the tests of `stzoo benchmark` share: a report whose figures are easy to compute with."""

from stzoo.benchmark.report import BenchmarkReport, Machine, PlainFigures

MACHINE = Machine(
    processor="An abacus", device="cpu", threads=2, waiting="1,000 spins, then asleep",
    system="Linux", python="3", torch="2", stzoo="0",
    peak_tflops={"float32": 0.2, "bfloat16": 1.6}, peak_size={"float32": 1024, "bfloat16": 2048},
    copy_gb_per_second=10.0,
)  # fmt: skip
PLAIN = PlainFigures(
    ratio_median=4.0, ratio_p10=3.0, ratio_p90=5.0, difference=0.01, difference_rms=0.002,
    latency_median_ms=40.0, latency_p90_ms=50.0,
    clips_per_second=25.0, achieved_tflops=0.1, peak_share=0.5, bytes_per_pass=100, intensity=100.0,
)  # fmt: skip
REPORT = BenchmarkReport(
    model="tau-mmnist", trained=True, parameters=1, precision="bfloat16", backend="torch",
    batch=1, frames_in=10, steps=10, passes=9,
    latency_median_ms=10.0, latency_p90_ms=12.0, graph_latency_median_ms=None, clips_per_second=100.0,
    macs_per_clip=2 * 10**9, achieved_tflops=0.4, peak_share=0.25, bytes_per_pass=20_000_000, intensity=200.0,
    memory_above_import_mib=80.0, memory_mib=300.0, cuda_memory_mib=None, import_stzoo_ms=1.0, import_torch_ms=900.0,
    first_forecast_ms=500.0, stream_20_mib=None, stream_1000_mib=None, plain=PLAIN, machine=MACHINE, command="c",
)  # fmt: skip
