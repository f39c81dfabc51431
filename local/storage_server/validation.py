"""JSON bodies, refused in the words of Ajv, with which storage-api v1.70.6 checks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from local.storage_server.errors import invalid_request

Model = TypeVar("Model", bound=BaseModel)

_WORDS: Final[Mapping[str, Callable[[dict[str, Any]], str]]] = {
    "greater_than_equal": lambda told: f"must be >= {told['ge']}",
    "int_type": lambda _: "must be integer",
    "int_parsing": lambda _: "must be integer",
    "int_from_float": lambda _: "must be integer",
    "bool_type": lambda _: "must be boolean",
    "bool_parsing": lambda _: "must be boolean",
    "string_type": lambda _: "must be string",
    "list_type": lambda _: "must be array",
    "too_short": lambda told: f"must NOT have fewer than {told['min_length']} items",
    "too_long": lambda told: f"must NOT have more than {told['max_length']} items",
    "literal_error": lambda _: "must be equal to one of the allowed values",
    "model_type": lambda _: "must be object",
}


def parse(model: type[Model], request: Request) -> Model:
    """Return the JSON body as ``model``.

    Raises:
        StorageError: ``InvalidRequest``, which names the first fault.
    """
    try:
        return model.model_validate_json(request.get_data() or b"null")
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # Ajv looks whether all is there before it looks at what is.
        raise _refusal(min(faults, key=lambda fault: fault["type"] != "missing")) from error


def _refusal(fault: ErrorDetails) -> Exception:
    kind, where = fault["type"], ["body", *map(str, fault["loc"])]
    if kind == "json_invalid":
        message = "Body is not valid JSON but content-type is set to 'application/json'"
        return invalid_request(message, error="FastifyError")
    if kind == "missing":
        return invalid_request(f"{'/'.join(where[:-1])} must have required property '{where[-1]}'")
    words = _WORDS[kind](fault.get("ctx", {})) if kind in _WORDS else fault["msg"]
    return invalid_request(f"{'/'.join(where)} {words}")
