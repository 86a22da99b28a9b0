"""Disks over HTTP: ``PUT /import_raw_vdi`` and ``GET /export_raw_vdi``, as raw bytes or as a VHD.

As with a real host the answer to a PUT begins before the body is read. So its status tells only that the import began; the
end of the connection says that it is over, and the task (``task_id``) how it went.
"""

from __future__ import annotations

import shutil
import urllib.parse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .api import Call
from .database import Row
from .disks import disk_of, idle, refreshed, scratch, using
from .drivers import backend_failure
from .marshal import Failure
from .storage import Disk, qemu_img, vhd_size

if TYPE_CHECKING:
    from .server import Handler

PIECE = 1 << 20


def asked(handler: Handler) -> tuple[Call, Row, str] | None:
    """The call that a query makes, its VDI and the format; answers what cannot be."""
    api = handler.peer.api
    query = dict(urllib.parse.parse_qsl(handler.path.partition("?")[2]))
    call = Call(api, handler.server.host, handler.path.partition("?")[0])
    try:
        call.session = api.session(query.get("session_id", ""))
    except Failure:
        handler.close_connection = True
        handler.reply(401, "text/html", b"")
        return None
    try:
        call.task = api.db.get("task", query["task_id"]) if "task_id" in query else api.task(call, call.name)
        name = query.get("vdi", "")
        vdi = api.db.uuids.get(("VDI", name)) or api.db.get("VDI", name)
        if query.get("format", "raw") not in ("raw", "vhd"):
            raise Failure("INVALID_VALUE", "format", query["format"])
        return call, vdi, query.get("format", "raw")
    except Failure as failure:
        handler.close_connection = True
        handler.reply(500, "text/html", " ".join(failure.description).encode())
        return None


def export(handler: Handler) -> None:
    """Send a disk."""
    found = asked(handler)
    if found is None:
        return
    call, vdi, format = found
    with call.api.telling(call), ExitStack() as stack:
        try:
            stack.enter_context(using(call, vdi, "copy"))
        except Failure as failure:
            handler.close_connection = True
            handler.reply(500, "text/html", " ".join(failure.description).encode())
            raise
        _, place, disk = disk_of(call.api, vdi)
        with scratch(place.folder) as raw:
            call.api.storage.to_raw(disk, raw)
            if format == "vhd":
                qemu_img("convert", "-q", "-f", "raw", "-O", "vpc", "-o", "force_size=on", str(raw), f"{raw}.vhd")
                Path(f"{raw}.vhd").replace(raw)
            handler.send_response(200)
            handler.send_header("Content-Length", str(raw.stat().st_size))
            handler.end_headers()
            with raw.open("rb") as data:
                shutil.copyfileobj(data, handler.wfile, PIECE)


def import_(handler: Handler) -> None:
    """Take a disk's content."""
    found = asked(handler)
    if found is None:
        return
    call, vdi, format = found
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.flush()
    with call.api.telling(call), using(call, vdi, "copy"):
        idle(call.api, vdi, "import")
        driver, place, disk = disk_of(call.api, vdi)
        with scratch(place.folder) as raw:
            body(handler, call, raw, disk, format)
            call.api.storage.from_raw(disk, raw)
        refreshed(call, call.db.get("SR", vdi["SR"]), driver, (vdi, disk))


def body(handler: Handler, call: Call, raw: Path, disk: Disk, format: str) -> None:
    """Write the body of the request into a raw file; what is too much or too little for what it says it is fails."""
    length = int(handler.headers.get("Content-Length", 0))
    if format == "raw" and length > disk.size:
        raise backend_failure(79, "VDI Invalid size")
    done = 0
    with raw.open("wb") as file:
        while done < length:
            piece = handler.rfile.read(min(PIECE, length - done))
            if not piece:
                raise Failure("VDI_IO_ERROR", "the connection ended early")
            done += len(piece)
            if piece.count(0) == len(piece):
                file.seek(len(piece), 1)
            else:
                file.write(piece)
            call.progress(0.8 * done / length)
        file.truncate(done)
    if format == "vhd":
        if not 0 < vhd_size(raw) <= disk.size:
            raise backend_failure(79, "VDI Invalid size")
        qemu_img("convert", "-q", "-f", "vpc", "-O", "raw", str(raw), f"{raw}.raw")
        Path(f"{raw}.raw").replace(raw)
