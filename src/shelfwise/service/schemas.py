"""Schemas: what the service takes and gives, for checking and for its OpenAPI document.

They do not know how anything is answered. The examples are made up.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shelfwise.answers import STATES

Name = Annotated[str, Field(min_length=1, max_length=500)]
Id = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=20_000)]
Precision = Annotated[
    float, Field(gt=0, lt=1, description="Answer only what is right this often; three decimals count.")
]


class ProductIn(BaseModel):
    """One product of a JSON batch: text, and photos by URL where the service allows that."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id | None = None
    category: Name | None = Field(default=None, description="Predicted if left out.")
    text: Text | dict[Name, Text] | None = Field(
        default=None, description="One text, or texts by the training table's column."
    )
    urls: list[Annotated[str, Field(max_length=8192)]] = Field(
        default=[], max_length=32, description="Photos of the product; only where the service allows URLs."
    )
    stated: dict[Name, Name] = Field(
        default={}, description="What somebody states, by attribute; of an audit only."
    )


class BatchIn(BaseModel):
    """A JSON batch of products."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "products": [
                        {"id": "A-17", "category": "Shirts", "text": "Cotton shirt with stripes"},
                        {"id": "A-18", "urls": ["https://example.com/photos/a-18.jpg"]},
                    ],
                    "precision": 0.95,
                }
            ]
        },
    )

    products: list[ProductIn] = Field(min_length=1)
    precision: Precision | None = None


class AnswerCell(BaseModel):
    """What is said of one attribute; a Number has a range instead of probabilities."""

    model_config = ConfigDict(extra="allow")

    value: str | float | None = Field(description="None unless the state is answered or not applicable.")
    state: Literal[STATES]  # type: ignore[valid-type]
    probability: float | None = None
    candidate: str | float | None = None
    runner_up: str | None = None
    runner_up_probability: float | None = None


class Answered(BaseModel):
    """What is said of one product."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "A-17",
                    "category": "Shirts",
                    "looks_like": "Shirts",
                    "answers": {
                        "sleeve": {
                            "value": "long",
                            "probability": 0.981,
                            "state": "answered",
                            "candidate": "long",
                            "runner_up": "three-quarter",
                            "runner_up_probability": 0.014,
                        }
                    },
                    "error": None,
                    "bundle": "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de",
                }
            ]
        }
    )

    id: str | None
    category: str | None
    looks_like: str | None = Field(
        description="The category of the training product that looks most like it."
    )
    answers: dict[str, AnswerCell]
    error: str | None = Field(description="Why there is no answer from a photo.")
    bundle: str = Field(description="SHA-256 that names the bundle that answered.")


class Unanswered(BaseModel):
    """A product of a batch that could not be asked about."""

    model_config = ConfigDict(extra="forbid")

    id: str | None
    category: str | None
    error: str


class Batch(BaseModel):
    """What is said of a batch, in the order asked."""

    products: list[Answered | Unanswered]


class JudgedValue(BaseModel):
    """One stated value beside what is seen."""

    attribute: str
    stated: str
    seen: str
    p_stated: float
    p_seen: float
    odds: float = Field(description="How many times more probable the value is if it is wrong.")
    in_text: bool
    suspect: bool


class Audited(BaseModel):
    """What is stated of one product, judged by its photo; the likeliest error first."""

    id: str | None
    category: str | None
    values: list[JudgedValue]
    error: str | None
    bundle: str


class AuditedBatch(BaseModel):
    """What is stated of a batch, in the order asked."""

    products: list[Audited | Unanswered]


class Problem(BaseModel):
    """Why a request got no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str


class BundleOut(BaseModel):
    """The bundle that answers."""

    bundle: str
    loaded: str
    summary: dict[str, Any]
    notes: list[str]


class Live(BaseModel):
    """The process runs."""

    live: Literal[True]


class Ready(BaseModel):
    """The service answers."""

    ready: Literal[True]


def multipart(audit: bool, photos: int) -> dict[str, Any]:
    """Return the schema of a form that asks about one product, with up to so many photos."""
    text: dict[str, Any] = {"type": "string", "maxLength": 20_000}
    fields: dict[str, Any] = {
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "maxItems": photos,
            "description": "Photos of the product: JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF.",
        },
        "category": {"type": "string", "minLength": 1, "maxLength": 500},
        "id": {"type": "string", "maxLength": 500},
        "text": {**text, "description": "What is written of the product."},
    }
    if audit:
        fields["stated"] = {
            **text,
            "minLength": 2,
            "description": 'What is stated, as a JSON object of texts: {"colour": "red"}.',
            "contentMediaType": "application/json",
        }
    else:
        fields["precision"] = {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
            "description": "Answer only what is right this often; three decimals count.",
        }
    needed = ["category", "stated"] if audit else []
    return {
        "type": "object",
        "properties": fields,
        "additionalProperties": False,
        **({"required": needed} if needed else {}),
    }
