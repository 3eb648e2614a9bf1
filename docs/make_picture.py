"""The README's picture: test products of the demo with what the bundle answered.

Run after `make demo`: .venv/bin/python docs/make_picture.py demo docs/images/demo.png
The products are the first readable ones of each category, not chosen by whether they were answered rightly.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

import shelfwise as sw

COLUMNS, ROWS = 5, 1
CELL, PHOTO = (204, 356), (156, 208)
INK, GREY, GOOD, BAD, LINE = (40, 40, 46), (128, 126, 124), (34, 120, 74), (186, 58, 44), (226, 224, 219)
MARGIN, HEAD = 18, 46


def fitting(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float
) -> str:
    """Return the text, cut with an ellipsis where it is wider than ``width`` pixels."""
    while draw.textlength(text, font=font) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


def main(demo: Path, out: Path) -> None:
    """Draw the picture from the folder that the demo wrote."""
    bundle = sw.load(demo / "bundle")
    folder = demo / "catalogue"
    catalog = bundle.read(folder / "test_labels.csv", images=folder / "test_images")
    answers = bundle.answer(catalog, machine=sw.Machine(cache=demo / "cache"))
    by_category = {
        name: [row for row in catalog.rows(name).tolist() if row not in answers.errors]
        for name in catalog.present
    }
    scale = 2
    size = (COLUMNS * CELL[0] + 2 * MARGIN, ROWS * CELL[1] + HEAD + MARGIN)
    sheet = Image.new("RGB", (size[0] * scale, size[1] * scale), (252, 251, 249))
    draw = ImageDraw.Draw(sheet)
    big, plain, small = (ImageFont.load_default(points * scale) for points in (13, 11, 10))
    right = cells = 0
    for k in range(COLUMNS * ROWS):
        category = catalog.present[k % len(catalog.present)]
        row = by_category[category][k // len(catalog.present)]
        x = (MARGIN + k % COLUMNS * CELL[0]) * scale
        y = (HEAD + k // COLUMNS * CELL[1]) * scale
        with Image.open(catalog.images[row] or "") as picture:
            photo = ImageOps.fit(picture.convert("RGB"), (PHOTO[0] * scale, PHOTO[1] * scale))
        sheet.paste(photo, (x, y))
        draw.rectangle((x, y, x + PHOTO[0] * scale, y + PHOTO[1] * scale), outline=LINE, width=scale)
        y += (PHOTO[1] + 6) * scale
        draw.text((x, y), category, font=plain, fill=INK)
        y += 17 * scale
        labels = catalog.labels(category)[catalog.rows(category).tolist().index(row)].tolist()
        found = answers.of(row)
        shown = 0
        for choice, code in zip(bundle.taxonomy.choices(category), labels, strict=True):
            if code < 0:
                continue
            answer, stated = found[choice.name], choice.values[code]
            correct = answer["value"] == stated
            right, cells = right + correct, cells + 1
            if shown == 9:
                continue
            shown += 1
            width = (CELL[0] - 10) * scale
            name = f"{choice.name.replace('_', ' ')}: "
            draw.text((x, y), name, font=small, fill=GREY)
            start = draw.textlength(name, font=small)
            text = f"{answer['value']}  {answer['probability']:.2f}" + ("" if correct else f"  (is {stated})")
            text = fitting(draw, text, small, width - start)
            draw.text((x + start, y), text, font=small, fill=GOOD if correct else BAD)
            y += 14 * scale
    title = "Unseen products of the rendered demo, answered from the photo alone"
    draw.text((MARGIN * scale, 10 * scale), title, font=big, fill=INK)
    caption = f"green: as drawn, red: wrong ({right} of the {cells} cells of these {COLUMNS * ROWS} products are right)"
    draw.text((MARGIN * scale, 27 * scale), caption, font=small, fill=GREY)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(out, optimize=True)
    print(f"wrote {out}: {right} of {cells} cells right, {len(catalog)} test products")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
