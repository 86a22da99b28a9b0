"""Pools from arguments: ``define-as`` and ``create-as``, with virsh's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from poolkit.cli.arguments import Values, usage_error

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def define_as(session: Session, values: Values) -> None:
    """``define-as NAME TYPE``."""
    definition = _definition(values)
    if values.print_xml:
        _print(session, definition)
        return
    pool = session.engine.define(definition)
    session.done(pool.outcome, pool.name, uuid=pool.uuid)


def create_as(session: Session, values: Values) -> None:
    """``create-as NAME TYPE``."""
    if values.overwrite and values.no_overwrite:
        raise usage_error("--overwrite and --no-overwrite exclude each other", "create-as")
    definition = _definition(values)
    if values.print_xml:
        _print(session, definition)
        return
    build = bool(values.build or values.overwrite or values.no_overwrite)
    pool = session.engine.create(definition, build=build, overwrite=bool(values.overwrite))
    session.done(pool.outcome, pool.name, uuid=pool.uuid)


def _print(session: Session, definition: Any) -> None:
    from poolkit import xmlmap

    session.xml(xmlmap.write(definition))


def _definition(values: Values) -> Any:
    """The definition that the arguments make, read by the same rules as a document of a file."""
    from poolkit import registry, xmlmap

    data = document(values).encode()
    return xmlmap.read(data, registry.candidates(data), filename="<arguments>")


def document(values: Values) -> str:
    """The pool's document. A dash stands for nothing, since virsh's users fill places with it."""
    given = {key: value for key, value in vars(values).items() if value not in (None, "-")}
    if ("auth_type" in given) != ("auth_username" in given):
        raise usage_error("--auth-type and --auth-username belong together")
    if "secret_uuid" in given and "secret_usage" in given:
        raise usage_error("--secret-uuid and --secret-usage exclude each other")

    def element(name: str, /, **attributes: str) -> str:
        shown = "".join(f" {key}={quoteattr(given[word])}" for key, word in attributes.items() if word in given)
        return f"<{name}{shown}/>" if shown else ""

    adapter = ""
    if "adapter_wwnn" in given or "adapter_wwpn" in given:
        adapter = element(
            "adapter", name="adapter_name", parent="adapter_parent", parent_wwnn="adapter_parent_wwnn",
            parent_wwpn="adapter_parent_wwpn", parent_fabric_wwn="adapter_parent_fabric_wwn", wwnn="adapter_wwnn",
            wwpn="adapter_wwpn",
        ).replace("<adapter", "<adapter type='fc_host'")  # fmt: skip
    elif "adapter_name" in given:
        adapter = element("adapter", name="adapter_name").replace("<adapter", "<adapter type='scsi_host'")
    auth = ""
    if "auth_type" in given:
        secret = element("secret", uuid="secret_uuid", usage="secret_usage")
        kinds = f"type={quoteattr(given['auth_type'])} username={quoteattr(given['auth_username'])}"
        auth = f"<auth {kinds}>{secret}</auth>"
    name = f"<name>{escape(given['source_name'])}</name>" if "source_name" in given else ""
    iqn = element("iqn", name="source_initiator")
    source = "".join([
        element("host", name="source_host"), element("dir", path="source_path"), element("device", path="source_dev"),
        adapter, auth, element("format", type="source_format"), name, element("protocol", ver="source_protocol_ver"),
        f"<initiator>{iqn}</initiator>" if iqn else "",
    ])  # fmt: skip
    target = f"<target><path>{escape(given['target'])}</path></target>" if "target" in given else ""
    return (
        f"<pool type={quoteattr(values.type)}><name>{escape(values.name)}</name>"
        + (f"<source>{source}</source>" if source else "")
        + f"{target}</pool>"
    )
