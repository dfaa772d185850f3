"""What a terminal shows after a program has written to it.

Knows what command-line programs use: colours, cursor movement, erasing, progress bars redrawn by
carriage return. Knows nothing of full-screen programs' finer points (margins, character sets), and
draws nothing: see `picture.py`.
"""

import re
import unicodedata
from dataclasses import dataclass, replace

TAB = 8
# A control sequence, an operating system command (titles, links), another escape, or any character.
TOKEN = re.compile(
    r"\x1b\[(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b(?P<escape>[ -/]*[0-~])"
    r"|(?P<character>.)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Style:
    """How a cell looks. Colours are None (default), 0 to 255, or a `#rrggbb` string."""

    foreground: object = None
    background: object = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False
    strike: bool = False


PLAIN = Style()
# Switches of SGR: code -> changes.
SWITCHES = {
    1: {"bold": True}, 2: {"dim": True}, 3: {"italic": True}, 4: {"underline": True},
    7: {"inverse": True}, 9: {"strike": True}, 21: {"underline": True},
    22: {"bold": False, "dim": False}, 23: {"italic": False}, 24: {"underline": False},
    27: {"inverse": False}, 29: {"strike": False},
    39: {"foreground": None}, 49: {"background": None},
}


@dataclass
class Cell:
    """A character with its look; empty text is the right half of a wide character."""

    text: str = " "
    style: Style = PLAIN


class Screen:
    """A screen of fixed size with unlimited history above it."""

    def __init__(self, columns=100, rows=30):
        self.columns = columns
        self.rows = rows
        self.history = []
        self.lines = [self._blank() for _ in range(rows)]
        self.row = 0
        self.column = 0
        self.style = PLAIN
        self._saved = (0, 0)
        # A character in the last column leaves the cursor there until the next one comes, so that
        # a line of exactly the full width is not followed by an empty one.
        self._wrap_pending = False

    def feed(self, text):
        """Interprets output of a program."""
        for token in TOKEN.finditer(text):
            if token["character"] is not None:
                self._character(token["character"])
            elif token["final"] is not None:
                self._control(token["final"], token["parameters"])
            elif token["escape"] is not None:
                self._escape(token["escape"])

    def content(self, last=None):
        """Lines from the first to the last that is not blank; of these the `last` ones."""
        lines = self.history + self.lines
        while lines and is_blank(lines[-1]):
            lines = lines[:-1]
        return lines[-last:] if last else lines

    # Characters

    def _character(self, character):
        actions = {"\n": self._line_feed, "\r": self._carriage_return, "\b": self._backspace, "\t": self._tab}
        if character in actions:
            actions[character]()
        elif unicodedata.combining(character) or character in "\u200d\ufe0f":
            self._combine(character)
        elif ord(character) >= 32 and character != "\x7f":
            self._print(character)

    def _print(self, character):
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._wrap_pending or self.column + width > self.columns:
            self._carriage_return()
            self._line_feed()
        line = self.lines[self.row]
        line[self.column] = Cell(character, self.style)
        if width == 2:
            line[self.column + 1] = Cell("", self.style)
        self.column += width
        if self.column >= self.columns:
            self.column = self.columns - 1
            self._wrap_pending = True

    def _combine(self, mark):
        """Puts an accent or a joiner on the character before the cursor."""
        at = self.column if self._wrap_pending else self.column - 1
        line = self.lines[self.row]
        while at > 0 and line[at].text == "":
            at -= 1
        if at >= 0:
            line[at] = Cell(line[at].text + mark, line[at].style)

    def _line_feed(self):
        self._wrap_pending = False
        if self.row < self.rows - 1:
            self.row += 1
            return
        self.history.append(self.lines.pop(0))
        self.lines.append(self._blank())

    def _carriage_return(self):
        self._move(column=0)

    def _backspace(self):
        self._move(column=self.column - 1)

    def _tab(self):
        self._move(column=(self.column // TAB + 1) * TAB)

    # Escapes

    def _escape(self, code):
        if code == "7":
            self._saved = (self.row, self.column)
        elif code == "8":
            self._move(*self._saved)
        elif code == "M":
            self._move(row=self.row - 1)
        elif code == "c":
            self.__init__(self.columns, self.rows)

    def _control(self, final, parameters):
        if parameters[:1] in ("?", ">", "<", "="):
            return  # modes of the terminal itself: cursor shape, mouse, paste
        numbers = [int(part) if part.isdigit() else None for part in re.split("[;:]", parameters)]
        if final == "m":
            self._look(numbers)
        elif final in "ABCDEFGHdf":
            self._cursor(final, numbers)
        elif final in "JKPX@LM":
            self._erase(final, numbers)
        elif final == "s":
            self._saved = (self.row, self.column)
        elif final == "u":
            self._move(*self._saved)

    def _cursor(self, final, numbers):
        first = numbers[0] or 1
        second = (numbers[1] if len(numbers) > 1 else None) or 1
        moves = {
            "A": (self.row - first, self.column), "B": (self.row + first, self.column),
            "C": (self.row, self.column + first), "D": (self.row, self.column - first),
            "E": (self.row + first, 0), "F": (self.row - first, 0),
            "G": (self.row, first - 1), "d": (first - 1, self.column),
            "H": (first - 1, second - 1), "f": (first - 1, second - 1),
        }
        self._move(*moves[final])

    def _move(self, row=None, column=None):
        self._wrap_pending = False
        if row is not None:
            self.row = max(0, min(row, self.rows - 1))
        if column is not None:
            self.column = max(0, min(column, self.columns - 1))

    def _erase(self, final, numbers):
        self._wrap_pending = False
        count = numbers[0] or 0
        line, at = self.lines[self.row], self.column
        if final == "K":
            self._clear(line, *self._span(count, at, self.columns))
        elif final == "J":
            self._erase_screen(count)
        elif final == "X":
            self._clear(line, at, min(at + max(count, 1), self.columns))
        elif final == "P":
            del line[at:at + max(count, 1)]
            line.extend(Cell() for _ in range(self.columns - len(line)))
        elif final == "@":
            line[at:at] = [Cell() for _ in range(max(count, 1))]
            del line[self.columns:]
        elif final in "LM":
            self._shift_lines(final, max(count, 1))

    def _erase_screen(self, what):
        if what == 3:
            self.history.clear()
            return
        start, end = self._span(what, self.row, self.rows)
        for row in range(start, end):
            if row != self.row or what == 2:
                self.lines[row] = self._blank()
        if what != 2:
            self._clear(self.lines[self.row], *self._span(what, self.column, self.columns))

    def _shift_lines(self, final, count):
        for _ in range(min(count, self.rows - self.row)):
            if final == "L":
                self.lines.insert(self.row, self._blank())
                self.lines.pop()
            else:
                self.lines.pop(self.row)
                self.lines.append(self._blank())

    @staticmethod
    def _span(what, at, size):
        """From here to the end, from the start to here, or all."""
        return {0: (at, size), 1: (0, at + 1)}.get(what, (0, size))

    @staticmethod
    def _clear(line, start, end):
        for at in range(start, end):
            line[at] = Cell()

    def _blank(self):
        return [Cell() for _ in range(self.columns)]

    # Colours

    def _look(self, numbers):
        codes = [number or 0 for number in numbers]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.style = PLAIN
            elif code in (38, 48):
                name = "foreground" if code == 38 else "background"
                self.style = replace(self.style, **{name: take_colour(codes)})
            else:
                self.style = replace(self.style, **(SWITCHES.get(code) or basic_colour(code)))


def take_colour(codes):
    """Takes an extended colour's parameters from the front of `codes`."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        return codes.pop(0) & 255
    if kind == 2 and len(codes) >= 3:
        red, green, blue = (codes.pop(0) & 255 for _ in range(3))
        return f"#{red:02x}{green:02x}{blue:02x}"
    return None


def basic_colour(code):
    for first, name, offset in ((30, "foreground", 0), (40, "background", 0), (90, "foreground", 8), (100, "background", 8)):
        if first <= code < first + 8:
            return {name: code - first + offset}
    return {}


def is_blank(line):
    return all(cell.text == " " and cell.style.background is None and not cell.style.inverse for cell in line)
