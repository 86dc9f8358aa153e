"""Fair comparisons: contenders take turns in one process, medians are compared, the first one is ours."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch


def race(benchmark: str, case: str, contenders: dict[str, Callable], unit: str,
         work: float = 1, repeats: int = 5) -> list[dict]:
    """One row for each contender, from `repeats` calls after one that warms up.

    A call does `work` units, such as images: `unit` names them, per second. Unit "ms" is the time of one call.
    """
    seconds = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    ours = statistics.median(seconds["ours"])
    rows = []
    for name, taken in seconds.items():
        values = [1000 * s if unit == "ms" else work / s for s in taken]
        rows.append(row(benchmark, case, name, unit, values, f"{statistics.median(taken) / ours:.1f} x"))
    return rows


def weigh(benchmark: str, case: str, contenders: dict[str, Callable]) -> list[dict]:
    """One row for each contender: the peak of memory that one call adds, in MB.

    Contenders are functions at the top of a module: on a CPU each runs in a process of its own.
    """
    peaks = {name: peak_memory(call) for name, call in contenders.items()}
    return [row(benchmark, case, name, "MB", [peak / 1e6], f"{peak / peaks['ours']:.1f} x")
            for name, peak in peaks.items()]


def row(benchmark: str, case: str, contender: str, unit: str, values: list[float], advantage: str) -> dict:
    """A line of the table; `advantage` is that of ours over this contender."""
    return {
        "benchmark": benchmark, "case": case, "contender": contender, "unit": unit, "values": values,
        "median": statistics.median(values), "advantage": advantage if contender != "ours" else "",
    }


def peak_memory(call: Callable) -> float:
    """Bytes that `call` needs at its peak beyond what was there before."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with ProcessPoolExecutor(1, get_context("spawn")) as child:  # unlike a queue it says so where the child dies
        return child.submit(_watched, call).result()


def _watched(call: Callable) -> int:
    """The growth of this process's largest resident size; Linux keeps it in /proc."""
    call(small=True)  # loads libraries and starts threads
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # sets the peak back to the present
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(key))
    return 1024 * int(kibibytes)


def table(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    lines = ["| benchmark | case | contender | median (range) | ours is better by |", "| --- | --- | --- | --- | --- |"]
    for r in rows:
        digits = 0 if r["median"] >= 100 else 1 if r["median"] >= 10 else 2
        low, mid, high = (f"{value:,.{digits}f}" for value in (min(r["values"]), r["median"], max(r["values"])))
        spread = f" ({low} to {high})" if len(r["values"]) > 1 else ""
        measured = f"{mid} {r['unit']}{spread}"
        lines.append(f"| {r['benchmark']} | {r['case']} | {r['contender']} | {measured} | {r['advantage']} |")
    return "\n".join(lines)
