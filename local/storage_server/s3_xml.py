"""XML as the S3 protocol writes and reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

from flask import Response

from local.storage_server.errors import StorageError

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_PROLOGUE: Final = b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'


def answer(root: str, content: Mapping[str, Any], *, status: int = 200) -> Response:
    """Return a response with one document.

    Args:
        root: The name of its root, which has S3's namespace, in errors too, as in storage-api v1.70.6.
        content: Its elements. A list repeats its element; None omits it.
        status: The HTTP status.
    """
    element = ET.Element(root, xmlns=NAMESPACE)
    _fill(element, content)
    return Response(_PROLOGUE + ET.tostring(element), status, content_type="application/xml; charset=utf-8")


def read(document: bytes) -> ET.Element:
    """Return the root of a request's document, with namespaces removed from the elements' names.

    Raises:
        StorageError: ``MalformedXML``.
    """
    try:
        # Expat expands only entities that the document declares, and limits the size of the result.
        root = ET.fromstring(document)  # noqa: S314 - see above; only holders of the key pair get here
    except ET.ParseError as error:
        raise StorageError(400, "MalformedXML", f"Invalid XML payload: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _fill(element: ET.Element, content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        for each in values:
            if each is None:
                continue
            child = ET.SubElement(element, name)
            if isinstance(each, Mapping):
                _fill(child, each)
            else:
                child.text = str(each).lower() if isinstance(each, bool) else str(each)
