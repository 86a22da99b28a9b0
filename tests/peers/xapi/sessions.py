"""session, task and secret."""

from __future__ import annotations

from typing import Any

from .api import Call, call, setter
from .database import Row, now
from .marshal import Failure, constructed


@call("session.login_with_password", "string", "string", "string", "string", gives="session ref", optional=2)
def login(call: Call, user: str, password: str, version: str = "", originator: str = "") -> str:
    api = call.api
    if api.users.get(user) != password:
        raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
    if api.hosts[call.host].ref != api.master().ref:
        raise Failure("HOST_IS_SLAVE", api.master()["address"])
    return opened(call, user, originator).ref


@call("session.slave_local_login_with_password", "string", "string", gives="session ref")
def local_login(call: Call, user: str, password: str) -> str:
    if call.api.users.get(user) != password:
        raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
    return opened(call, user, "").ref


def opened(call: Call, user: str, originator: str) -> Row:
    row = call.db.make(
        "session",
        this_host=call.api.hosts[call.host].ref,
        last_active=now(),
        validation_time=now(),
        is_local_superuser=True,
        auth_user_name=user,
        originator=originator,
    )
    return row


@call("session.logout")
def logout(call: Call) -> None:
    assert call.session is not None
    call.db.drop(call.session)
    with call.db.lock:
        call.db.lock.notify_all()


@call("session.local_logout")
def local_logout(call: Call) -> None:
    logout(call)


@call("task.create", "string", "string", gives="task ref")
def create(call: Call, label: str, description: str) -> str:
    return call.api.task(call, label, description).ref


@call("task.destroy", "task ref")
def destroy(call: Call, task: Row) -> None:
    if (running := call.api.running.get(task.ref)) is not None:
        running.cancelled.set()
    call.db.drop(task)


@call("task.cancel", "task ref")
def cancel(call: Call, task: Row) -> None:
    if "cancel" not in task["allowed_operations"]:
        raise Failure("OPERATION_NOT_ALLOWED", "task is not pending" if task["status"] != "pending" else task.ref)
    with call.db.lock:
        running = call.api.running.get(task.ref)
        if running is None:
            call.db.set(task, status="cancelled", finished=now(), allowed_operations=["destroy"])
            return
        running.cancelled.set()
        call.db.set(task, status="cancelling", current_operations={task.ref: "cancel"})


@call("task.set_status", "task ref", "enum task_status_type")
def set_status(call: Call, task: Row, value: str) -> None:
    ended = {} if value == "pending" else {"finished": now(), "allowed_operations": ["destroy"]}
    call.db.set(task, status=value, **ended)


setter("task", "progress", "float")
setter("task", "result", "string")
setter("task", "error_info", "string set")


@call("secret.create", "secret record", gives="secret ref")
def secret_create(call: Call, record: Any) -> str:
    return call.db.make("secret", **constructed("secret", record, ("value",))).ref


@call("secret.destroy", "secret ref")
def secret_destroy(call: Call, secret: Row) -> None:
    call.db.drop(secret)
