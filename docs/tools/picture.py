"""A terminal's lines as a self-contained SVG: no script, no external font, the same bytes for the
same lines, so that a change of the picture is a change of the output.
"""

from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from screen import Style

FONT = "ui-monospace, 'SF Mono', 'Cascadia Mono', 'JetBrains Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SIZE = 14
ADVANCE = 8.4  # of a character at this size, in the common fonts; the others are squeezed to it
LEADING = 20
MARGIN = 18
BAR = 38

BACKGROUND = "#12151c"
BAR_COLOUR = "#1c212b"
FOREGROUND = "#d7dce5"
BASIC = [
    "#3b4252", "#f2777a", "#7fd88f", "#f0c674", "#7aa6f7", "#c792ea", "#6fd3d8", "#c5ccd8",
    "#6b7487", "#ff8f92", "#9be9a8", "#ffd98a", "#9ec1ff", "#dab0f5", "#93e4e8", "#ffffff",
]


def picture(lines, columns, title, description):
    """The SVG of `lines`, `columns` wide."""
    width = round(columns * ADVANCE + 2 * MARGIN)
    height = BAR + len(lines) * LEADING + 2 * MARGIN
    parts = [head(width, height, title, description)]
    for number, line in enumerate(lines):
        parts.extend(row(line, BAR + MARGIN + number * LEADING))
    parts.append("</svg>\n")
    return "\n".join(parts)


def head(width, height, title, description):
    dots = "".join(
        f'<circle cx="{20 + at * 20}" cy="{BAR / 2:g}" r="6" fill="{colour}"/>'
        for at, colour in enumerate(("#f2777a", "#f0c674", "#7fd88f"))
    )
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description">',
        f'<title id="title">{text(title)}</title>',
        f'<desc id="description">{text(description)}</desc>',
        f"<style>text{{font:{SIZE}px {FONT};white-space:pre;fill:{FOREGROUND}}}.b{{font-weight:700}}.d{{opacity:.65}}.i{{font-style:italic}}.u{{text-decoration:underline}}.s{{text-decoration:line-through}}</style>",
        f'<rect width="{width}" height="{height}" rx="10" fill="{BACKGROUND}"/>',
        f'<path d="M0 {BAR}V10a10 10 0 0 1 10-10H{width - 10}a10 10 0 0 1 10 10V{BAR}z" fill="{BAR_COLOUR}"/>',
        dots,
        f'<text x="{width / 2:g}" y="{BAR / 2 + 5:g}" text-anchor="middle" class="d">{text(title)}</text>',
    ])


def row(line, top):
    """Backgrounds first, then the text, one element for each run of the same look."""
    for start, style, content, cells in runs(line):
        _, background = colours(style)
        if background:
            yield f'<rect x="{position(start)}" y="{top}" width="{cells * ADVANCE:.1f}" height="{LEADING}" fill="{background}"/>'
    for start, style, content, cells in runs(line):
        yield from words(start, style, content, cells, top)


def words(start, style, content, cells, top):
    shown = content.rstrip(" ") if not (style.underline or style.strike) else content
    if not shown.strip(" "):
        return
    indent = len(shown) - len(shown.lstrip(" "))
    width = cells - indent - (len(content) - len(shown))
    foreground, _ = colours(style)
    attributes = [f'x="{position(start + indent)}"', f'y="{top + LEADING - 6}"']
    if width > 1:
        # Holds the columns in line whatever font the reader has.
        attributes.append(f'textLength="{width * ADVANCE:.1f}" lengthAdjust="spacingAndGlyphs"')
    if foreground != FOREGROUND:
        attributes.append(f"style={quoteattr(f'fill:{foreground}')}")
    if classes := class_names(style):
        attributes.append(f'class="{classes}"')
    yield f"<text {' '.join(attributes)}>{text(shown[indent:])}</text>"


def runs(line):
    """Groups cells of the same look: start column, look, text, number of columns."""
    start = 0
    for style, cells in groupby(line, key=lambda cell: cell.style):
        cells = list(cells)
        yield start, style, "".join(cell.text for cell in cells), len(cells)
        start += len(cells)


def colours(style: Style):
    """Foreground and background as they are drawn; no background means the picture's own."""
    foreground = colour(style.foreground, FOREGROUND)
    background = colour(style.background, None)
    if style.inverse:
        return background or BACKGROUND, foreground
    return foreground, background


def colour(value, default):
    if value is None:
        return default
    if isinstance(value, str):
        return value
    if value < 16:
        return BASIC[value]
    if value >= 232:
        grey = 8 + (value - 232) * 10
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    cube = value - 16
    levels = [0, 95, 135, 175, 215, 255]
    red, green, blue = levels[cube // 36], levels[cube // 6 % 6], levels[cube % 6]
    return f"#{red:02x}{green:02x}{blue:02x}"


def class_names(style):
    names = {"b": style.bold, "d": style.dim, "i": style.italic, "u": style.underline, "s": style.strike}
    return " ".join(name for name, on in names.items() if on)


def position(column):
    return f"{MARGIN + column * ADVANCE:.1f}"


def text(content):
    """Escaped, and without characters that XML does not allow."""
    return escape("".join(c for c in content if c in "\t\n" or ord(c) >= 32))
