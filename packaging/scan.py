#!/usr/bin/python3
"""Makes a PDF as a scanner does: one JPEG a page, nothing else.

    packaging/scan.py OUTPUT.pdf TEXT_FILE...

Each text is set as a page of type on A4 at 300 dpi, laid a little askew on the glass, with the grain of paper
and the sensor's noise. Texts that do not exist are left out. Needs Debian's python3-pil and fonts-dejavu-core.
"""

import pathlib
import sys

from PIL import Image, ImageChops, ImageDraw, ImageFont

DPI = 300
PAGE = (2480, 3508)  # A4
MARGIN = 220
LINE_HEIGHT = 44
COLUMNS = 112
PAPER = (246, 244, 238)
INK = (40, 40, 48)
GRAIN = 10
QUALITY = 75  # raised when the file would be too small
PAGES = 5
PAGES_OF_A_TEXT = 2
MINIMUM_OCTETS = 5 * 1024 * 1024
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf"


def lines_of(text):
    """The text in lines that fit the page."""
    for line in text.splitlines():
        while len(line) > COLUMNS:
            cut = line.rfind(" ", 1, COLUMNS) + 1 or COLUMNS
            yield line[:cut]
            line = line[cut:]
        yield line


def sheets_of(text):
    lines = list(lines_of(text))
    room = (PAGE[1] - 2 * MARGIN) // LINE_HEIGHT
    return [lines[start:start + room] for start in range(0, len(lines), room)][:PAGES_OF_A_TEXT]


def typeset(lines, font):
    page = Image.new("RGB", PAGE, PAPER)
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + number * LINE_HEIGHT), line, font=font, fill=INK)
    return page


def scanned(page, number):
    """Askew by up to half a degree, and grainy."""
    angle = (number * 37 % 11 - 5) / 10
    page = page.rotate(angle, resample=Image.BILINEAR, fillcolor=PAPER)
    grain = Image.effect_noise(PAGE, GRAIN).convert("RGB")
    return ImageChops.add(page, grain, scale=1, offset=-128)


def main(output, *names):
    font = ImageFont.truetype(FONT, 30)
    texts = [path.read_text(encoding="utf-8") for path in map(pathlib.Path, names) if path.exists()]
    sheets = [sheet for text in texts for sheet in sheets_of(text)][:PAGES]
    if not sheets:
        raise SystemExit("scan.py: none of the texts exists")
    pages = [scanned(typeset(sheet, font), number) for number, sheet in enumerate(sheets)]
    quality = QUALITY
    while True:
        pages[0].save(output, "PDF", resolution=DPI, save_all=True, append_images=pages[1:],
                      quality=quality)
        if pathlib.Path(output).stat().st_size >= MINIMUM_OCTETS or quality >= 95:
            break
        quality += 5
    print(f"{len(pages)} pages of {DPI} dpi")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
