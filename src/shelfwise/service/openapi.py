"""OpenAPI: what the document says of requests and answers beside what the routes say themselves.

It does not know how anything is answered.
"""

import copy
from types import UnionType
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from shelfwise.service.options import LONGEST_MS
from shelfwise.service.problems import MEDIA
from shelfwise.service.schemas import BatchIn, Problem, multipart

ABOUT = (
    "Reads product photos and text and fills in the catalogue entry, with how sure. Every error is "
    "application/problem+json with a stable `code`. 429 and 503 say in Retry-After when to ask again. "
    "X-Deadline-Ms says how long an answer is of use; X-Request-ID comes back and stands in the log."
)
SAYS = {
    400: "The request cannot be read",
    401: "There is no key, or none that is good",
    403: "The key has not the scope",
    408: "The request did not arrive in time",
    409: "The bundle was not taken",
    413: "More than is taken",
    415: "Content of a kind that is not taken",
    422: "The request cannot be answered; the detail says where and why",
    429: "More requests than the key may make",
    503: "Too much waits, or it would be too late",
}


def responses(model: type[BaseModel] | UnionType | None, *refusals: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer: a model, and these refusals."""
    found: dict[int | str, dict[str, Any]] = {200: {"description": "Done"}}
    if model is not None:
        found[200]["model"] = model
    for status in refusals:
        found[status] = {"description": SAYS[status], "model": Problem}
        if status in (429, 503):
            found[status]["headers"] = {
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
            }
    return found


def takes(*, audit: bool, photos: int) -> dict[str, Any]:
    """Return what a route that is asked about products takes, with up to so many photos each."""
    form = {"id": "A-17", "category": "Shirts", "text": "Cotton shirt with stripes"}
    form |= {"stated": '{"sleeve": "short"}'} if audit else {"precision": "0.95"}
    batch = copy.deepcopy(_inlined(BatchIn))
    product = batch["properties"]["products"]["items"]
    if audit:
        del batch["properties"]["precision"]
        batch.pop("examples")
        product["required"] = ["category", "stated"]
        product["properties"]["category"] = {"type": "string", "minLength": 1, "maxLength": 500}
        product["properties"]["stated"]["minProperties"] = 1
    else:
        del product["properties"]["stated"]
    content = {
        "multipart/form-data": {"schema": multipart(audit, photos), "example": form},
        "application/json": {"schema": batch},
    }
    deadline = {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "description": "Milliseconds after which the answer is of no use.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_MS},
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [deadline]}


def describe(app: FastAPI) -> None:
    """Let the document of an application say how keys are given and what its problems look like."""
    generated = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = generated()
            found.setdefault("components", {})["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            for path, routes in found["paths"].items():
                for route in routes.values():
                    _settle(route, open_to_all=path.startswith("/v2/health/"))
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _settle(route: dict[str, Any], *, open_to_all: bool) -> None:
    """Say of one route whether it needs a key, and the media type of its refusals."""
    route["security"] = [] if open_to_all else [{"bearer": []}, {"header": []}]
    for status, answer in route["responses"].items():
        if int(status) >= 400:
            answer["content"] = {MEDIA: next(iter(answer["content"].values()))}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a model with the models in it written out."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def put_in(node: Any) -> Any:
        if isinstance(node, dict):
            name = node.get("$ref", "").removeprefix("#/$defs/")
            return put_in(parts[name]) if name else {key: put_in(value) for key, value in node.items()}
        return [put_in(each) for each in node] if isinstance(node, list) else node

    found: dict[str, Any] = put_in(schema)
    return found
