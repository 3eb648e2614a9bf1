"""Intake: requests to products: forms and JSON, read within limits, photos checked by their first bytes.

It does not know what is answered. Content decides what a file is, never its name or its stated type.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from shelfwise.data.headers import sniff
from shelfwise.errors import ImageError
from shelfwise.service.forms import Form
from shelfwise.service.options import ServiceOptions
from shelfwise.service.problems import Refusal
from shelfwise.service.products import Product
from shelfwise.service.schemas import BatchIn, Id, Name, Precision, ProductIn, Text

FORM, JSON = "multipart/form-data", "application/json"
#: Bytes of a JSON batch.
JSON_MOST = 4_000_000
_CLOSE = {"Connection": "close"}
#: What each field of a form may be: once, except photos.
FIELDS = {"answer": ("category", "id", "text", "precision"), "audit": ("category", "id", "text", "stated")}
#: The status of a photo that is refused, by the kind of its error; 422 for the others.
STATUS = {"not_an_image": 415, "unsupported": 415}
_precision: TypeAdapter[float] = TypeAdapter(Precision)
_stated: TypeAdapter[dict[str, str]] = TypeAdapter(dict[Name, Name])


class _Fields(BaseModel):
    """The fields of a form, as texts."""

    category: Name | None = None
    id: Id | None = None
    text: Text | None = None


@dataclass(frozen=True)
class Asked:
    """What a request asks about.

    Attributes:
        products: one or several.
        urls: addresses of photos, by product.
        precision: the promise asked for.
        batch: whether it came as a batch, and is answered as one.
    """

    products: tuple[Product, ...]
    urls: tuple[tuple[str, ...], ...] = ()
    precision: float | None = None
    batch: bool = False


async def read_request(request: Request, verb: str, options: ServiceOptions) -> Asked:
    """Read what a request asks.

    Raises:
        Refusal: it cannot be read, or is more than is taken.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return await _read_form(request, verb, options)
    if kind == JSON:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > JSON_MOST:
                raise Refusal(
                    413, "too_large", f"the batch has more than {JSON_MOST:,} bytes", headers=_CLOSE
                )
        return _read_batch(bytes(content), verb, options)
    raise Refusal(415, "media_type", f"this takes {FORM} or {JSON}, not {kind[:100] or 'nothing'!r}")


async def _read_form(request: Request, verb: str, options: ServiceOptions) -> Asked:
    kind = request.headers["content-type"]
    form = Form(kind, FIELDS[verb], photos=options.max_images, photo=options.max_image)
    async for piece in request.stream():
        form.write(piece)
    form.end()
    return _of_form(form.photos, form.texts, verb)


def _of_form(photos: list[bytes], texts: dict[str, str], verb: str) -> Asked:
    for number, photo in enumerate(photos, start=1):
        check_photo(photo, f"image {number}")
    precision = texts.pop("precision", None)
    said = texts.pop("stated", None)
    given = _valid(_Fields, texts)
    product = Product(given.id, given.category, given.text, tuple(photos), _stated_of(said, verb))
    if verb == "audit" and product.category is None:
        raise Refusal(422, "field", "category: an audit needs the product's category")
    if not photos and product.text is None:
        raise Refusal(422, "nothing", "the form has neither an image nor a text")
    return Asked((product,), ((),), None if precision is None else _precision_of(precision))


def _read_batch(content: bytes, verb: str, options: ServiceOptions) -> Asked:
    try:
        given = BatchIn.model_validate_json(content)
    except ValidationError as error:
        raise Refusal(422, "json", _said(error)) from error
    if len(given.products) > options.max_items:
        detail = f"the batch has {len(given.products):,} products, {options.max_items:,} are taken"
        raise Refusal(413, "too_many", detail)
    if verb == "audit" and given.precision is not None:
        raise Refusal(422, "field", "precision: of answers, not of an audit")
    products, urls = [], []
    for number, each in enumerate(given.products):
        where = f"products.{number}"
        _check_item(each, where, verb, options)
        products.append(Product(each.id, each.category, each.text, (), each.stated))
        urls.append(tuple(each.urls))
    precision = None if given.precision is None else round(given.precision, 3)
    return Asked(tuple(products), tuple(urls), _inside(precision), True)


def _check_item(each: ProductIn, where: str, verb: str, options: ServiceOptions) -> None:
    if each.urls and not options.allow_urls:
        detail = f"{where}.urls: this service takes no addresses; send photos as a form, or serve with --allow-urls"
        raise Refusal(422, "urls", detail)
    if len(each.urls) > options.max_images:
        raise Refusal(
            422, "too_many", f"{where}.urls: {len(each.urls)} photos, {options.max_images} are taken"
        )
    if not each.urls and each.text is None:
        raise Refusal(422, "nothing", f"{where}: neither an address of a photo nor a text")
    if verb == "audit" and (each.category is None or not each.stated):
        raise Refusal(422, "field", f"{where}: an audit needs category and stated")
    if verb == "answer" and each.stated:
        raise Refusal(422, "field", f"{where}.stated: what is stated is judged by /v1/audit")


def check_photo(data: bytes, where: str) -> None:
    """Refuse what its first bytes show to be no photo; what more is wrong is found when it is looked at.

    Raises:
        Refusal: with the reason.
    """
    try:
        sniff(data)
    except ImageError as error:
        raise Refusal(STATUS.get(error.kind, 422), f"image_{error.kind}", f"{where}: {error}") from error


def _precision_of(text: str) -> float | None:
    try:
        return _inside(round(_precision.validate_python(float(text)), 3))
    except (ValueError, OverflowError) as error:
        raise Refusal(422, "precision", "precision: a number between 0 and 1, such as 0.95") from error


def _inside(precision: float | None) -> float | None:
    """Keep a rounded precision inside (0, 1): few different ones are worked out."""
    return None if precision is None else min(max(precision, 0.001), 0.999)


def _stated_of(text: str | None, verb: str) -> Mapping[str, str]:
    if verb != "audit":
        return {}
    try:
        stated = _stated.validate_python(json.loads(text or "{}"), strict=True)
    except (ValueError, RecursionError) as error:
        raise Refusal(422, "stated", 'stated: a JSON object of texts, such as {"colour": "red"}') from error
    if not stated:
        raise Refusal(422, "stated", "stated: nothing is stated, so there is nothing to judge")
    return stated


def _valid(model: type[_Fields], texts: Mapping[str, str]) -> _Fields:
    try:
        return model.model_validate(dict(texts))
    except ValidationError as error:
        raise Refusal(422, "field", _said(error)) from error


def _said(error: ValidationError, most: int = 5) -> str:
    """Return what is wrong and where, without repeating what was sent."""
    found: Sequence[str] = [
        f"{'.'.join(map(str, item['loc'])) or 'content'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more
