"""Values on the wire: XML-RPC as XenAPI writes it, and JSON.

XenAPI's XML-RPC is peculiar: an int is a string of digits, nothing but an empty string says "void", and no white space stands
between tags. The ready text of a record is kept until the record changes, so a listing of ten thousand is a join.
"""

from __future__ import annotations

import json
import xmlrpc.client
from typing import Any
from xml.sax.saxutils import escape

from .schema import CLASSES, ENUMS, Date, Field, Real


class Failure(Exception):
    """A call that fails: the code and its parameters."""

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(code, *params)
        self.description = [code, *params]


class Text(str):
    """A value that is already in the form of the wire."""

    __slots__ = ()


def xml(value: Any) -> str:
    """``value`` as XML-RPC."""
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, Date):
        return f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>"
    if isinstance(value, str):
        return f"<value>{escape(value)}</value>"
    if isinstance(value, bool):
        return f"<value><boolean>{int(value)}</boolean></value>"
    if isinstance(value, int):
        return f"<value>{value}</value>"
    if isinstance(value, float):
        return f"<value><double>{float(value):.20g}</double></value>"
    if isinstance(value, dict):
        members = "".join(f"<member><name>{escape(k)}</name>{xml(v)}</member>" for k, v in value.items())
        return f"<value><struct>{members}</struct></value>"
    if value is None:
        return "<value></value>"
    return f"<value><array><data>{''.join(map(xml, value))}</data></array></value>"


def xml_reply(value: Any, failure: list[str] | None = None) -> str:
    """The whole answer to a call."""
    body = {"Status": "Failure", "ErrorDescription": failure} if failure else {"Status": "Success", "Value": value}
    return xml_raw(body)


def xml_raw(value: Any) -> str:
    """An answer without the struct around it that says how it went: only ``system.listMethods`` is so."""
    return f'<?xml version="1.0"?><methodResponse><params><param>{xml(value)}</param></params></methodResponse>'


def xml_call(body: bytes) -> tuple[str, list[Any]]:
    """The method and the parameters of a call."""
    params, method = xmlrpc.client.loads(body, use_builtin_types=False)
    if not method:
        raise ValueError("no method name")
    return method, list(params)


def json_text(value: Any) -> str:
    """``value`` as JSON."""
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, Real):
        return json.dumps(float(value))
    return json.dumps("" if value is None else value)


def json_reply(request: dict[str, Any], value: Any, failure: list[str] | None = None) -> str:
    """The whole answer to a call of either version."""
    ident = json.dumps(request.get("id"))
    if request.get("jsonrpc") != "2.0":
        error = json.dumps(failure) if failure else "null"
        return f'{{"result":{"null" if failure else json_text(value)},"error":{error},"id":{ident}}}'
    if failure:
        error = json.dumps({"code": 1, "message": failure[0], "data": failure[1:]})
        return f'{{"jsonrpc":"2.0","error":{error},"id":{ident}}}'
    return f'{{"jsonrpc":"2.0","result":{json_text(value)},"id":{ident}}}'


def given(value: Any, type: str, name: str) -> Any:
    """``value`` of the parameter or field ``name`` as ``type`` has it inside; FIELD_TYPE_ERROR where it does not fit."""
    if type.endswith(" set"):
        if isinstance(value, list):
            return [given(each, type.removesuffix(" set"), name) for each in value]
    elif type.endswith(" map"):
        inner = type[1:].removesuffix(") map").partition(" -> ")
        if isinstance(value, dict):
            return {given(k, inner[0], name): given(v, inner[2], name) for k, v in value.items()}
        if value in ("", []):  # how some writers put an empty map
            return {}
    elif type == "int":
        try:
            if not isinstance(value, bool | float):
                return int(value)
        except (TypeError, ValueError):
            pass
    elif type == "bool":
        if isinstance(value, bool):
            return value
    elif type == "float":
        if isinstance(value, int | float) and not isinstance(value, bool):
            return Real(value)
    elif type == "datetime":
        if isinstance(value, str | xmlrpc.client.DateTime):
            return Date(value)
    elif type.startswith("enum "):
        for known in ENUMS[type.split()[1]].split():
            if isinstance(value, str) and known.lower() == value.lower():
                return known
    elif isinstance(value, str):
        return str(value)
    raise Failure("FIELD_TYPE_ERROR", name)


def constructed(cls: str, record: Any, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a constructor takes of ``record``; fields that only the server sets are passed over, as xapi does."""
    if not isinstance(record, dict):
        raise Failure("FIELD_TYPE_ERROR", "record")
    for name in needed:
        if name not in record:
            raise Failure("INTERNAL_ERROR", f'Rpc.Runtime_error: missing field "{name}"')
    fields: dict[str, Field] = CLASSES[cls]
    return {
        name: given(value, fields[name].type, name)
        for name, value in record.items()
        if name in fields and fields[name].qualifier != "ro"
    }
