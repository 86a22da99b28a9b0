"""pool, host, VM and VBD, as far as storage needs them."""

from __future__ import annotations

from typing import Any

from .api import Api, Call, call
from .database import Row
from .disks import disk_of
from .drivers import driver
from .marshal import Failure, constructed
from .operations import allowed_vdi, plugged
from .schema import NULL

GIB = 1 << 30


def populate(api: Api, hosts: int, names: list[str]) -> None:
    """The pool, its hosts and their control domains, and the SM records."""
    db = api.db
    from .drivers import DRIVERS

    for index in range(hosts):
        host = db.make(
            "host",
            name_label=f"xen{index + 1}",
            hostname=f"xen{index + 1}",
            address=names[index],
            enabled=True,
            API_version_major=2,
            API_version_minor=21,
            API_version_vendor="XenSource",
            software_version={"product_brand": "poolkit test peer", "product_version": "8.3.0", "xapi": "24.11"},
            iscsi_iqn=f"iqn.2010-01.org.example:xen{index + 1}",
            license_server={"address": "localhost", "port": "27000"},
            virtual_hardware_platform_versions=[0, 1, 2],
        )
        domain = machine(api, f"Control domain on host: xen{index + 1}", "pv", True, host)
        db.set(domain, is_control_domain=True, domid=0)
        db.set(host, control_domain=domain.ref)
        api.hosts.append(host)
    db.make("pool", name_label="peer", master=api.hosts[0].ref)
    for each in DRIVERS.values():
        db.make("SM", **each.sm())


def machine(api: Api, name: str, kind: str, running: bool, host: Row) -> Row:
    """A virtual machine; PV guests can have disks plugged, HVM guests only with drivers of their own."""
    return api.db.make(
        "VM",
        name_label=name,
        power_state="Running" if running else "Halted",
        domain_type=kind,
        resident_on=host.ref if running else NULL,
        memory_static_max=GIB,
        memory_dynamic_max=GIB,
        memory_dynamic_min=GIB,
        memory_static_min=GIB // 2,
        allowed_operations=["clean_shutdown", "hard_shutdown"] if running else ["start", "destroy"],
    )


@call("VM.start", "VM ref", "bool", "bool")
def start(call: Call, vm: Row, paused: bool, force: bool) -> None:
    if vm["power_state"] != "Halted":
        raise Failure("VM_BAD_POWER_STATE", vm.ref, "halted", vm["power_state"].lower())
    call.db.set(vm, power_state="Running", resident_on=call.api.master().ref)
    for vbd in call.db.of(vm, "VBDs"):
        plug(call, vbd)


@call("VM.hard_shutdown", "VM ref")
def hard_shutdown(call: Call, vm: Row) -> None:
    if vm["power_state"] != "Running":
        raise Failure("VM_BAD_POWER_STATE", vm.ref, "running", vm["power_state"].lower())
    for vbd in call.db.of(vm, "VBDs"):
        if vbd["currently_attached"]:
            detached(call, vbd)
    call.db.set(vm, power_state="Halted", resident_on=NULL)


@call("VM.clean_shutdown", "VM ref")
def clean_shutdown(call: Call, vm: Row) -> None:
    hard_shutdown(call, vm)


# -- VBD ------------------------------------------------------------------------------------------------------------------


@call("VBD.create", "VBD record", gives="VBD ref")
def create(call: Call, record: Any) -> str:
    needed = ("VM", "VDI", "userdevice", "bootable", "mode", "type", "empty", "other_config")
    fields, db = constructed("VBD", record, (*needed, "qos_algorithm_type", "qos_algorithm_params")), call.db
    fields.pop("currently_attached", None)
    vm = db.get("VM", fields["VM"])
    with db.lock:
        if not fields["empty"]:
            vdi = db.get("VDI", fields["VDI"])
            if not vdi["managed"]:
                raise Failure("VDI_NOT_MANAGED", vdi.ref)
            if vdi["read_only"] and fields["mode"] == "RW":
                raise Failure("VDI_READONLY", vdi.ref)
        taken = {vbd["userdevice"] for vbd in db.of(vm, "VBDs")}
        if fields["userdevice"] == "autodetect":
            fields["userdevice"] = next(str(n) for n in range(255) if str(n) not in taken)
        elif fields["userdevice"] in taken:
            raise Failure("DEVICE_ALREADY_EXISTS", fields["userdevice"])
        row = db.make("VBD", **fields)
        allowed(call, row)
    return row.ref


def allowed(call: Call, vbd: Row) -> None:
    """Say anew what can be done with a VBD and its VDI."""
    attached = vbd["currently_attached"]
    call.db.set(vbd, allowed_operations=["unplug", "unplug_force"] if attached else ["attach", "plug"])
    vdi = call.db.tables["VDI"].get(vbd["VDI"])
    if vdi is not None:
        sr = call.db.get("SR", vdi["SR"])
        allowed_vdi(call.api, vdi, driver(sr["type"]).features, bool(plugged(call.api, sr)))


@call("VBD.plug", "VBD ref")
def plug(call: Call, vbd: Row) -> None:
    db = call.db
    with db.lock:
        vm = db.get("VM", vbd["VM"])
        if vm["power_state"] != "Running":
            raise Failure("VM_BAD_POWER_STATE", vm.ref, "running", vm["power_state"].lower())
        if vbd["currently_attached"]:
            raise Failure("DEVICE_ALREADY_ATTACHED", vbd["userdevice"])
        if vm["domain_type"] == "hvm" and vm["guest_metrics"] == NULL:
            raise Failure("VM_MISSING_PV_DRIVERS", vm.ref)
        vdi = db.get("VDI", vbd["VDI"])
        sr = db.get("SR", vdi["SR"])
        if vm["resident_on"] not in [pbd["host"] for pbd in plugged(call.api, sr)]:
            raise Failure("SR_NOT_ATTACHED", sr.ref)
        disk_of(call.api, vdi)
        for other in db.of(vdi, "VBDs"):
            both = other["currently_attached"] and not vdi["sharable"]
            if both and "RW" in (other["mode"], vbd["mode"]):
                raise Failure("VDI_IN_USE", vdi.ref, "attach")
        db.set(vbd, currently_attached=True, device=f"xvd{chr(97 + int(vbd['userdevice']) % 26)}")
        allowed(call, vbd)


@call("VBD.unplug", "VBD ref")
def unplug(call: Call, vbd: Row) -> None:
    if not vbd["currently_attached"]:
        raise Failure("DEVICE_ALREADY_DETACHED", vbd.ref)
    detached(call, vbd)


@call("VBD.unplug_force", "VBD ref")
def unplug_force(call: Call, vbd: Row) -> None:
    unplug(call, vbd)


def detached(call: Call, vbd: Row) -> None:
    with call.db.lock:
        call.db.set(vbd, currently_attached=False, device="")
        allowed(call, vbd)


@call("VBD.destroy", "VBD ref")
def destroy(call: Call, vbd: Row) -> None:
    with call.db.lock:
        if vbd["currently_attached"]:
            raise Failure("OPERATION_NOT_ALLOWED", f"VBD '{vbd.uuid}' still attached to '{vbd['VM']}'")
        vdi = call.db.tables["VDI"].get(vbd["VDI"])
        call.db.drop(vbd)
        if vdi is not None:
            sr = call.db.get("SR", vdi["SR"])
            allowed_vdi(call.api, vdi, driver(sr["type"]).features, bool(plugged(call.api, sr)))
