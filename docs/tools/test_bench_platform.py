"""Tests of what the platform's benchmark reads and writes: `python3 -m unittest discover docs/tools`."""

import importlib.machinery
import importlib.util
import sys
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))
sys.dont_write_bytecode = True

from bench import wrk  # noqa: E402
from bench.shell import BenchError  # noqa: E402

WRK = """Running 2s test @ http://127.0.0.1:1/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.03ms    4.15ms  50.02ms   88.58%
    Req/Sec     9.20k   849.40    11.26k    67.50%
  Latency Distribution
     50%  930.00us
     75%    4.52ms
     90%    9.02ms
     99%    1.02s
  36605 requests in 2.00s, 2.83MB read
Requests/sec:  18281.07
Transfer/sec:      1.41MB
"""


def program():
    loader = importlib.machinery.SourceFileLoader("bench_platform", str(TOOLS / "bench-platform"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class WrkTest(unittest.TestCase):
    def test_rate_and_latencies_are_read_in_every_unit(self):
        load = wrk.read(WRK)
        self.assertEqual((load.rate, load.p99), (18281.07, 1.02))
        self.assertAlmostEqual(load.p50, 0.00093)

    def test_requests_that_failed_are_no_figure(self):
        failed = WRK.replace("  36605 requests", "  Non-2xx or 3xx responses: 7\n  36605 requests")
        with self.assertRaisesRegex(BenchError, "Non-2xx"):
            wrk.read(failed)
        with self.assertRaisesRegex(BenchError, "timeout 3"):
            wrk.read(WRK + "  Socket errors: connect 0, read 1, write 0, timeout 3\n")

    def test_a_connection_that_is_closed_after_its_answer_is_none_of_them(self):
        self.assertEqual(wrk.read(WRK + "  Socket errors: connect 0, read 9, write 0, timeout 0\n").rate, 18281.07)

    def test_what_is_no_report_is_refused(self):
        with self.assertRaisesRegex(BenchError, "unknown"):
            wrk.read("usage: wrk")


class DocumentTest(unittest.TestCase):
    def test_what_is_not_reached_says_so(self):
        module = program()
        loads = {}
        for fresh in (False, True):
            for name, rate in ((module.OURS, 900.0 if fresh else 1100.0), (module.NGINX, 1000.0), (module.DIRECT, 2000.0)):
                loads[name, fresh] = [wrk.Load(rate, 0.001, 0.002)] * (2 * module.ROUNDS)
        slow = wrk.Load(1000.0, 0.001, 0.002)
        loads[module.OURS, False][: module.ROUNDS - 1] = [slow] * (module.ROUNDS - 1)
        text = module.proxy_section(loads, 8)
        self.assertIn("| requests a second, connections kept | at least those of nginx | 1.10 times (1.00 – 1.10) | yes |", text)
        self.assertIn("| requests a second, connections new each time | at least those of nginx | 0.90 times (0.90 – 0.90) | **no** |", text)
        self.assertIn("| 99 of 100, connections kept | not later than with nginx | 2.0 ms to 2.0 ms | yes |", text)

    def test_the_line_of_the_test_is_found(self):
        found = program().ENDURED.search("x\nendured: blue-green: 200 deployments in 412 s: 7 requests, none failed\ny")
        self.assertEqual(found.groups(), ("blue-green", "200", "412", "7 requests, none failed"))


class SectionsTest(unittest.TestCase):
    def test_sections_are_known_by_their_headings(self):
        text = "# Title\n\n## Machine\n\nx\n\n## The proxy beside nginx\n\na\n\n## 1000 tenants on one server\n\nb\n\n## 32 uploads at once\n\nc\n"
        found = program().sections_of(text)
        self.assertEqual(list(found), ["proxy", "tenants", "uploads"])
        self.assertEqual(found["uploads"], "## 32 uploads at once\n\nc\n")


if __name__ == "__main__":
    unittest.main()
