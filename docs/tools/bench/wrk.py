"""wrk, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .shell import BenchError, need, run

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass
class Load:
    """What came of so many seconds of requests."""

    rate: float
    p50: float
    p99: float


def load(url: str, connections: int, seconds: int, fresh: bool) -> Load:
    """As many requests as there can be, on connections that are kept or on a new one each."""
    words = [need("wrk"), "--threads", 2, "--connections", connections, "--duration", f"{seconds}s", "--latency"]
    if fresh:
        words += ["--header", "Connection: close"]
    return read(run([*words, url]))


def read(text: str) -> Load:
    """Figures are worth nothing where requests have failed."""
    errors = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text)
    if errors and not re.fullmatch(r"Socket errors: connect 0, read \d+, write 0, timeout 0", errors.group(0)):
        raise BenchError(f"wrk reports errors: {errors.group(0)}")
    rate = re.search(r"^Requests/sec:\s+([\d.]+)$", text, re.MULTILINE)
    times = {percent: time(value, unit) for percent, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)}
    if not rate or set(times) != {"50", "99"}:
        raise BenchError(f"wrk says something unknown: {text}")
    return Load(float(rate.group(1)), times["50"], times["99"])


def time(value: str, unit: str) -> float:
    return float(value) * UNITS[unit]
