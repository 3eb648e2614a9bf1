"""The verb converse: labelled products as conversations, to fine-tune a vision-language model elsewhere.

It parses, calls one library function and prints.
"""

from typing import Annotated

import typer

from shelfwise.cli.options import (
    Attributes,
    Category,
    Id,
    Ignore,
    Image,
    Images,
    Number,
    Out,
    Table,
    Text,
    app,
    columns_of,
    say,
)


@app.command()
def converse(
    table: Table,
    out: Out,
    images: Images = None,
    attributes: Attributes = None,
    tell: Annotated[
        str, typer.Option(metavar="COLUMN[,COLUMN]", help="Columns whose text is put into the questions.")
    ] = "",
    id: Id = "",
    category: Category = "",
    image: Image = "",
    text: Text = "",
    number: Number = "",
    ignore: Ignore = "",
) -> None:
    """Write labelled products as questions with their right replies (ShareGPT), to fine-tune a model on."""
    from shelfwise.catalog import Catalog
    from shelfwise.recipes.conversations import write_conversations

    columns = columns_of(id, category, image, text, number, ignore)
    catalog = Catalog.read(table, images=images, attributes=attributes, columns=columns)
    told = tuple(part.strip() for part in tell.split(",") if part.strip())
    written = write_conversations(catalog, out, text=told, abstain=False)
    say(catalog.findings)
    print(f"wrote {out}: {written:,} conversations of {len(catalog):,} products")
