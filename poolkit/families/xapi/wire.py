"""Calls and answers as bytes: JSON-RPC 2.0, and XML-RPC for hosts that are too old for it.

XML-RPC of XenAPI is peculiar: an int is a text of digits, and an answer is a struct that says how it went. Who reads a number
calls ``int`` on it, and has it either way.
"""

from __future__ import annotations

import contextlib
import gc
import json
import xmlrpc.client
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple
from xml.parsers.expat import ExpatError

Speech = Literal["json", "xml"]


class Answer(NamedTuple):
    """What a host says: a ``value``, or in ``refused`` the code of a failure and its parameters."""

    value: Any = None
    refused: tuple[Any, ...] = ()


def request(speech: Speech, number: int, method: str, params: list[Any]) -> tuple[str, str, bytes]:
    """Path, type and body of a call; ``ValueError`` for what cannot be written."""
    if speech == "json":
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": number})
        return "/jsonrpc", "application/json", body.encode()
    try:
        text = xmlrpc.client.dumps(tuple(map(_plain, params)), method)
        return "/", "text/xml", text.encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def answer(speech: Speech, number: int, data: bytes) -> Answer:
    """What the bytes of an answer to the call ``number`` say; ``ValueError`` for what is none."""
    try:
        with unhindered():
            return _json(number, json.loads(data)) if speech == "json" else _xml(data)
    except (
        LookupError,
        ArithmeticError,
        TypeError,
        AttributeError,
        RecursionError,
        ExpatError,
        xmlrpc.client.Error,
    ) as error:
        raise ValueError("no answer of XenAPI") from error


def _json(number: int, said: Any) -> Answer:
    error = said.get("error")
    if error is not None:
        return Answer(refused=(error["message"], *(error.get("data") or [])))
    if said["id"] != number:
        raise ValueError("the answer to another call")
    return Answer(said["result"])


def _xml(data: bytes) -> Answer:
    (said,), _ = xmlrpc.client.loads(data)
    if said["Status"] == "Success":  # type: ignore[index, call-overload]
        return Answer(said["Value"])  # type: ignore[index, call-overload]
    return Answer(refused=tuple(said["ErrorDescription"]) or ("INTERNAL_ERROR",))  # type: ignore[index, call-overload]


@contextlib.contextmanager
def unhindered() -> Iterator[None]:
    """No garbage is looked for in the body: ten thousand records are half a million objects, and none of them is any."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
