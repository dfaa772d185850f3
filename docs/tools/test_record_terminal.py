"""Tests of the terminal recorder: `python3 -m unittest discover docs/tools`."""

import importlib.machinery
import importlib.util
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from picture import BASIC, colour, picture  # noqa: E402
from screen import Screen, Style  # noqa: E402


def load_recorder():
    loader = importlib.machinery.SourceFileLoader("record_terminal", str(HERE / "record-terminal"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


recorder = load_recorder()


def shown(text, columns=20, rows=5, last=None):
    screen = Screen(columns, rows)
    screen.feed(text)
    return ["".join(cell.text for cell in line).rstrip() for line in screen.content(last)]


class ScreenTest(unittest.TestCase):
    def test_progress_bars_leave_only_their_last_state(self):
        self.assertEqual(shown("10%\r50%\r\x1b[2Kdone\r\n"), ["done"])
        self.assertEqual(shown("one\r\ntwo\r\n\x1b[2A\x1b[Jthree\r\n"), ["three"])
        self.assertEqual(shown("a\r\nb\x1b[1A\r\x1b[KA\x1b[1B\rB"), ["A", "B"])

    def test_a_shorter_line_over_a_longer_one_keeps_the_rest(self):
        self.assertEqual(shown("building\rdone"), ["doneding"])

    def test_lines_leave_at_the_top_and_stay_in_history(self):
        text = "".join(f"{number}\r\n" for number in range(12))
        self.assertEqual(shown(text), [str(number) for number in range(12)])
        self.assertEqual(shown(text, last=3), ["9", "10", "11"])

    def test_a_full_line_is_not_followed_by_an_empty_one(self):
        self.assertEqual(shown("12345\r\nnext", columns=5), ["12345", "next"])
        self.assertEqual(shown("1234567", columns=5), ["12345", "67"])

    def test_wide_and_combining_characters_take_their_columns(self):
        self.assertEqual(shown("a漢b\x1b[5GX"), ["a漢bX"])
        self.assertEqual(shown("e\u0301x"), ["e\u0301x"])
        self.assertEqual(shown("1234漢", columns=5), ["1234", "漢"])

    def test_cursor_positions(self):
        self.assertEqual(shown("\x1b[2;3Hx\x1b[Hy\tz\b\b*"), ["y      *z", "  x"])
        self.assertEqual(shown("\x1b7abc\x1b8X\x1b[sYZ\x1b[uW"), ["XWZ"])

    def test_erasing(self):
        self.assertEqual(shown("abcdef\x1b[3D\x1b[1K"), ["    ef"])
        self.assertEqual(shown("abcdef\x1b[1G\x1b[2P"), ["cdef"])
        self.assertEqual(shown("abcdef\x1b[1G\x1b[2@"), ["  abcdef"])
        self.assertEqual(shown("abcdef\x1b[2G\x1b[2X"), ["a  def"])
        self.assertEqual(shown("a\r\nb\r\nc\x1b[2;1H\x1b[M"), ["a", "c"])
        self.assertEqual(shown("a\r\nb\x1b[1;1H\x1b[L"), ["", "a", "b"])

    def test_titles_links_and_modes_are_not_shown(self):
        text = "\x1b]0;title\x07\x1b[?25l\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\\x1b[?25h\x1b(B\x07"
        self.assertEqual(shown(text), ["link"])

    def test_colours(self):
        screen = Screen(20, 2)
        screen.feed("\x1b[1;31ma\x1b[0;38;5;208mb\x1b[48;2;1;2;3mc\x1b[7md\x1b[39;49;27me\x1b[mf\x1b[90;4mg\x1b[22;24mh")
        self.assertEqual([cell.style for cell in screen.lines[0][:8]], [
            Style(foreground=1, bold=True),
            Style(foreground=208),
            Style(foreground=208, background="#010203"),
            Style(foreground=208, background="#010203", inverse=True),
            Style(),
            Style(),
            Style(foreground=8, underline=True),
            Style(foreground=8),
        ])

    def test_a_sequence_that_makes_no_sense_does_no_harm(self):
        self.assertEqual(shown("a\x1b[38;5mb\x1b[999;999Hc\x1b[;;;md\x1b"), ["ab", "", "", "", " " * 19 + "c", "d"])


class PictureTest(unittest.TestCase):
    def lines(self, text):
        screen = Screen(20, 5)
        screen.feed(text)
        return screen.content()

    def test_it_is_xml_and_everything_is_escaped(self):
        svg = picture(self.lines("<b>&\"'\x1b[44m x \x1b[0m"), 20, "a & b", "<desc>")
        root = ElementTree.fromstring(svg)
        texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual(texts, ["a & b", "<b>&\"'", "x"])
        for forbidden in ("<script", "href", "url(", "@import"):
            self.assertNotIn(forbidden, svg)

    def test_backgrounds_cover_spaces(self):
        self.assertIn(f'width="25.2" height="20" fill="{BASIC[4]}"', picture(self.lines("\x1b[44m x "), 20, "t", "d"))

    def test_colour_cube(self):
        self.assertEqual([colour(value, None) for value in (16, 231, 196, 232, 255)], ["#000000", "#ffffff", "#ff0000", "#080808", "#eeeeee"])

    def test_the_same_lines_give_the_same_bytes(self):
        self.assertEqual(*(picture(self.lines("a\r\nb"), 20, "t", "d") for _ in range(2)))


class RedactionTest(unittest.TestCase):
    def test_paths_become_short_and_longer_names_stay(self):
        replacements = recorder.private_paths(Path("/home/me/src/project"), Path("/home/me"))
        text = "/home/me/src/project/target /home/me/src/project: /home/me/x /home/menu /home/me/src/project-2"
        self.assertEqual(recorder.redact(text, replacements), "./target .: ~/x /home/menu ~/src/project-2")

    def test_a_home_of_slash_redacts_nothing(self):
        self.assertEqual(recorder.private_paths(Path("/a/b"), Path("/")), [("/a/b", ".")])


class CommandTest(unittest.TestCase):
    def record(self, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "deep" / "picture.svg"
            command = [sys.executable, str(HERE / "record-terminal"), "--output", str(output), *arguments]
            process = subprocess.run(command, capture_output=True, text=True, timeout=60)
            return process, output.read_text() if output.exists() else None

    def test_a_command_sees_a_terminal_of_the_given_size(self):
        script = "test -t 1 && stty size && pwd && printf '\\033[32mgreen\\033[0m\\n'"
        process, svg = self.record("--columns", "60", "--rows", "10", "--shown", "demo", "--", "sh", "-c", f"cd {HERE} && {script}")
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        self.assertIn(">10 60</text>", svg)
        self.assertIn(">./docs/tools</text>", svg)
        self.assertIn(f"fill:{BASIC[2]}", svg)
        self.assertIn(">demo</text>", svg)

    def test_long_output_keeps_the_prompt_and_the_end(self):
        _, svg = self.record("--lines", "5", "--shown", "demo", "--", "seq", "100")
        root = ElementTree.fromstring(svg)
        texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual(texts, ["demo", "$", "demo", "⋮", "98", "99", "100"])

    def test_a_command_that_fails_gives_no_picture(self):
        process, svg = self.record("--", "sh", "-c", "echo because; exit 3")
        self.assertIsNone(svg)
        self.assertEqual(process.returncode, 1)
        self.assertIn("because", process.stderr)
        self.assertIn("ended with 3", process.stderr)
        _, svg = self.record("--expect-status", "3", "--", "sh", "-c", "exit 3")
        self.assertIsNotNone(svg)

    def test_a_command_that_does_not_exist_says_so(self):
        process, _ = self.record("--", "no-such-command")
        self.assertIn("no-such-command: No such file or directory", process.stderr)
        self.assertIn("ended with 127", process.stderr)

    def test_a_command_that_does_not_end_is_ended(self):
        process, svg = self.record("--timeout", "0.3", "--", "sleep", "60")
        self.assertIsNone(svg)
        self.assertIn("still running after 0.3 s", process.stderr)


if __name__ == "__main__":
    unittest.main()
