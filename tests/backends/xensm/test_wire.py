"""Answers as bytes: what no host says is a ``ValueError``, and a refusal without a reason is none the less one."""

from __future__ import annotations

import pytest

from poolkit.families.xapi import wire

VALUE = "<methodResponse><params><param><value>%s</value></param></params></methodResponse>"
STRUCT = "<struct><member><name>Status</name><value>%s</value></member><member><name>%s</name><value>%s</value></member></struct>"


@pytest.mark.parametrize(
    "text",
    [
        "", "</a>", "<methodResponse/>", '<?xml version="1.0" encoding="none-such"?><methodResponse/>',
        VALUE % "<bigdecimal>much</bigdecimal>", VALUE % "<boolean>7</boolean>", VALUE % "<double>much</double>",
        VALUE % "<struct><member/></struct>", VALUE % "<array><data/></array>", VALUE % STRUCT % ("Success", "Val", "1"),
        VALUE % STRUCT % ("Failure", "ErrorDescription", "<nil/>"),
    ],
)  # fmt: skip
def test_what_is_no_answer_of_xml_rpc(text: str) -> None:
    with pytest.raises(ValueError):
        wire.answer("xml", 1, text.encode())


@pytest.mark.parametrize(
    "text", ["", "7", "[]", "{}", '{"id": 1, "error": 5}', '{"id": 2, "result": ""}', "[" * 100_000]
)
def test_what_is_no_answer_of_json_rpc(text: str) -> None:
    with pytest.raises(ValueError):
        wire.answer("json", 1, text.encode())


def test_a_refusal_without_a_reason_is_one() -> None:
    text = VALUE % STRUCT % ("Failure", "ErrorDescription", "<array><data></data></array>")
    assert wire.answer("xml", 1, text.encode()).refused
    assert wire.answer("json", 1, b'{"id": 1, "error": {"message": "SR_FULL"}}').refused == ("SR_FULL",)
