"""The README's picture: parts of the demo's own pages, fit on the left, audit on the right.

Run after `make demo`: .venv/bin/python docs/make_picture.py demo docs/images/demo.png
It needs the extra `dev` and a Chromium on the path. Nothing is drawn here: sections are hidden, none is changed, and
the first mismatches are shown, whichever they are.
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Pixels of a column and of the picture's height, as the page counts them; each is drawn as 2 x 2.
WIDTH, HEIGHT, SCALE = 540, 816, 2
COLOURS = 256
HIDDEN = "nav, details, [data-filter], .strip, .hero dl {display: none !important} "
#: What is left out of each page.
PARTS = {
    "report.html": "section:not(#coverage) {display: none !important}",
    "audit.html": "section:not(#mismatches), #mismatches [data-filter] > :not(ul) {display: none !important} "
    "#mismatches [data-filter] {display: block !important}",
}


def column(browser: Browser, page: Path, hide: str) -> Image.Image:
    """Return the top of a page, as wide as a column."""
    opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE)
    opened.goto(page.resolve().as_uri())
    opened.evaluate(
        "css => { const sheet = new CSSStyleSheet(); sheet.replaceSync(css);"
        " document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet]; }",
        HIDDEN + hide,
    )
    return Image.open(io.BytesIO(opened.screenshot())).convert("RGB")


def main(demo: Path, out: Path) -> None:
    """Write the picture from the pages in the folder that the demo wrote."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"this needs a Chromium on the path; looked for {', '.join(BROWSERS)}")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=root)
        columns = [column(browser, demo / name, hide) for name, hide in PARTS.items()]
        browser.close()
    sheet = Image.new("RGB", (len(columns) * WIDTH * SCALE, HEIGHT * SCALE))
    for place, image in enumerate(columns):
        sheet.paste(image, (place * WIDTH * SCALE, 0))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"wrote {out}: {sheet.width} x {sheet.height}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
