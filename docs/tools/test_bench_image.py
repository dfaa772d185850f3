"""Tests of the benchmark's arithmetic and document: `python3 -m unittest discover docs/tools`."""

import argparse
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from bench import document, machine, material  # noqa: E402
from bench.baselines import hash_and_copy  # noqa: E402
from bench.contestants import Sample  # noqa: E402
from bench.daemons import REQUEST  # noqa: E402
from bench.report import Figures, at_least, at_most, cell, duration, megabytes, spread, table, within  # noqa: E402
from bench.shell import BenchError, Workshop, eventually, run  # noqa: E402

PLAIN = "ours, uncompressed (dev)"


def figures(**cases):
    """Three runs of each contestant of the synthetic image: case to contestant to median."""
    made = Figures()
    for case, contestants in cases.items():
        for contestant, median in contestants.items():
            for seconds in (median * 2, median, median / 2):
                made.add("synthetic", case, contestant, Sample(seconds, requests=1, report={"seconds": seconds / 2}))
    return made


class ArithmeticTest(unittest.TestCase):
    def test_durations_have_three_digits_in_a_fitting_unit(self):
        shown = [duration(seconds) for seconds in (0.00234, 0.0999, 0.1, 0.4267, 1, 12.345)]
        self.assertEqual(shown, ["2.3 ms", "99.9 ms", "100 ms", "427 ms", "1.00 s", "12.35 s"])
        self.assertEqual(megabytes(64_000_000), "64.0 MB")

    def test_a_spread_is_the_median_between_the_extremes(self):
        self.assertEqual(spread([3, 1, 2]), "2.00 s (1.00 s – 3.00 s)")
        self.assertEqual(spread([1]), "1.00 s")
        self.assertEqual(spread([]), "–")

    def test_ratios_say_honestly_whether_they_are_reached(self):
        self.assertEqual(at_least("c", 8, 4.0, 0.5, "docker").row(), ["c", "8 times faster than docker", "8.0 times (4.00 s to 500 ms)", "yes"])
        self.assertIs(at_least("c", 8, 3.99, 0.5, "docker").reached, False)
        self.assertEqual(within("c", 1.3, 0.4, 0.25, "bare").row()[2:], ["1.60 (400 ms to 250 ms)", "**no**"])
        self.assertIs(at_most("c", 64e6, 64_000_001, "peak", megabytes).reached, False)

    def test_what_was_not_measured_is_no_success(self):
        for requirement in (at_least("c", 8, None, 1, "d"), within("c", 1, 1, None, "d"), at_most("c", 1, None, "peak", duration)):
            self.assertEqual(requirement.row()[3], "not measured")

    def test_cells_hold_both_times_and_the_requests(self):
        samples = [Sample(0.02, requests=1, report={"seconds": 0.01}), Sample(0.03, requests=2)]
        self.assertEqual(cell(samples), "25.0 ms (20.0 ms – 30.0 ms); in the process 10.0 ms; 1 request")
        self.assertEqual(cell([]), "–")
        self.assertEqual(table(["a", "b"], [["1", "2"]]), "| a | b |\n| --- | --- |\n| 1 | 2 |\n")


class DocumentTest(unittest.TestCase):
    def requirements(self, made):
        return {(r.case, r.required): r for r in document.requirements(made, "dev")}

    def test_the_quicker_docker_is_the_measure(self):
        dockers = dict(zip(document.DOCKERS, (4.0, 1.0)))
        found = self.requirements(figures(nothing={PLAIN: 0.04, **dockers}))
        speed = found["nothing changed", "30 times faster than docker"]
        self.assertEqual((speed.measured, speed.reached), ("25.0 times (1.00 s to 40.0 ms)", False))
        self.assertIs(found["nothing changed", "1 request"].reached, True)
        self.assertIs(found["nothing changed", "in the process: at most 15.0 ms"].reached, False)

    def test_a_blob_sent_twice_is_noticed(self):
        pushes = [{"uploaded": 5, "seconds": 1.0}, {"uploaded": 0, "seconds": 0.003}, {"uploaded": 1, "seconds": 0.004}]
        made = Figures()
        made.add("repositories", "100", PLAIN, Sample(1.0, report={"pushes": pushes}))
        made.add("baselines", "mounts", document.MOUNTS, Sample(0.001))
        blobs, cost, *tenants = document.more_repositories(made, PLAIN)
        self.assertEqual((blobs.measured, blobs.reached), ("1 blobs", False))
        self.assertEqual((cost.measured, cost.reached), ("2.5 ms", True))
        self.assertEqual([requirement.reached for requirement in tenants], [None, None])

    def test_a_document_of_some_cases_has_no_empty_sections(self):
        made = figures(first={PLAIN: 1.0, "buildah": 4.0})
        text = document.write(made, [("cores", "2")], argparse.Namespace(runs=3))
        self.assertIn("| cores | 2 |", text)
        self.assertIn("| buildah | 4.00 s (2.00 s – 8.00 s); in the process 2.00 s; 1 request |", text)
        for absent in ("Peak memory", "embedded registry\n", "Baselines", "one binary changed |"):
            self.assertNotIn(absent, text.replace("## What was asked for", ""))


class MaterialTest(unittest.TestCase):
    def test_files_are_new_after_each_mark_and_as_long_as_before(self):
        with tempfile.TemporaryDirectory() as folder:
            source, binary = Path(folder) / "source", Path(folder) / "binary"
            source.write_bytes(bytes(range(256)))
            material.fill(binary, source, 1000, offset=250)
            self.assertEqual(binary.read_bytes()[:8], bytes([250, 251, 252, 253, 254, 255, 0, 1]))
            made = material.Material(Path(folder), [binary, binary], "test")
            seen = {binary.read_bytes()}
            for _ in range(3):
                made.change_one()
                seen.add(binary.read_bytes())
            self.assertEqual((len(seen), {len(content) for content in seen}), (4, {1000}))

    def test_the_baseline_copies_what_it_hashes(self):
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "file", Path(folder) / "out"
            source.write_bytes(b"x" * 3_000_000)
            out.mkdir()
            self.assertGreater(hash_and_copy(out, [source]), 0)
            self.assertEqual((out / "file").read_bytes(), source.read_bytes())


class ShellTest(unittest.TestCase):
    def test_a_failure_names_the_command_and_what_it_said(self):
        with self.assertRaisesRegex(BenchError, "`sh -c echo why >&2; exit 3` ended with 3:\nwhy"):
            run(["sh", "-c", "echo why >&2; exit 3"])
        with self.assertRaisesRegex(BenchError, "no-such-program is missing: run docs/tools/bench-image --setup"):
            run(["no-such-program"])
        with self.assertRaisesRegex(BenchError, "sleep was still running after 0.2 s"):
            run(["sleep", "60"], timeout=0.2)
        with self.assertRaisesRegex(BenchError, "it does not answer in 0 s"):
            eventually("it does not answer", lambda: False, 0)

    def test_the_folder_goes_away(self):
        with tempfile.TemporaryDirectory() as parent:
            with Workshop(Path(parent)) as workshop:
                (workshop.folder("a") / "file").write_text("x")
                self.assertEqual(list(workshop.empty("a").iterdir()), [])
            self.assertEqual(list(Path(parent).iterdir()), [])


class MachineTest(unittest.TestCase):
    def test_versions_are_found_in_what_programs_print(self):
        self.assertEqual(machine.number("Docker version 26.1.5+dfsg1, build 411e817"), "26.1.5")
        self.assertEqual(machine.number("github.com/docker/buildx 0.13.1+ds1-3 x"), "0.13.1")
        self.assertEqual(machine.version(["no-such-program"]), "missing")

    def test_requests_are_counted_in_the_registrys_log(self):
        log = b'127.0.0.1 - - [x] "HEAD /v2/a/manifests/1 HTTP/1.1" 200\ntime="x" level=info msg="GET /v2/"\n127.0.0.1 "POST /v2/a/blobs/uploads/ HTTP/1.1" 202\n'
        self.assertEqual(len(REQUEST.findall(log)), 2)


if __name__ == "__main__":
    unittest.main()
