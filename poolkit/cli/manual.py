"""Manual pages for man(1), from the table of verbs: ``poolkit.1``, and one for each group of verbs."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterable, Iterator

from poolkit.cli.arguments import GLOBAL, Argument
from poolkit.cli.shell import exit_codes, synopsis
from poolkit.cli.verbs import GROUPS, Verb, verbs
from poolkit.cli.verbs.shapes import SHAPES

_PLACES = (
    ("definitions, autostart marks", "/etc/poolkit/storage", "$XDG_CONFIG_HOME/poolkit/storage"),
    ("list of volumes, journals", "/var/lib/poolkit", "$XDG_STATE_HOME/poolkit"),
    ("locks", "/run/poolkit", "$XDG_STATE_HOME/poolkit/run"),
    ("secrets", "/etc/poolkit/secrets", "$XDG_CONFIG_HOME/poolkit/secrets"),
)
_ENVIRONMENT = (
    ("XDG_CONFIG_HOME, XDG_STATE_HOME", "where users other than root have definitions and state; ~/.config and ~/.local/state "
     "by default"),
    ("VISUAL, EDITOR", "the editor of edit; vi by default"),
    ("TMPDIR", "where large files are for a while; /var/tmp by default"),
    ("NO_COLOR", "no colours, whatever it holds"),
    ("http_proxy, https_proxy, no_proxy", "proxies for the addresses of vol-import"),
    ("SSL_CERT_FILE", "authorities that these addresses are trusted by, besides the system's"),
)  # fmt: skip
_EXAMPLE = """\
poolkit define-as images dir - - - - /srv/images
poolkit build images
poolkit start images
poolkit vol-create-as images disk1 20GiB --allocation 0
poolkit vol-list images"""


def pages(version: str) -> dict[str, str]:
    """Every page by its file's name."""
    made = {"poolkit.1": _page("poolkit", "libvirt's storage pools and volumes without a daemon", version, _main())}
    for group, title in GROUPS.items():
        name = page_of(group)
        inside = [verb for verb in verbs() if verb.group == group]
        made[f"{name}.1"] = _page(name, f"poolkit's verbs: {title[0].lower()}{title[1:]}", version, _group(inside))
    return made


def page_of(group: str) -> str:
    """The name of the page that a group of verbs has."""
    return f"poolkit-{group}"


def _page(name: str, what: str, version: str, body: Iterable[str]) -> str:
    # What is built twice is the same: see reproducible-builds.org on SOURCE_DATE_EPOCH.
    stamp = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = time.strftime("%Y-%m-%d", time.gmtime(int(stamp))) if stamp.isdecimal() else ""
    head = f'.TH {name.upper()} 1 "{date}" "poolkit {version}" "poolkit"'
    lines = [head, ".nh", ".ad l", ".SH NAME", f"{text(name)} \\- {text(what)}", *body]
    return "\n".join(lines) + "\n"


def text(words: str) -> str:
    """Running text, in which nothing is taken for a macro or an escape."""
    return (
        "\n".join(_safe(line) for line in textwrap.wrap(" ".join(words.split()), 100, break_on_hyphens=False)) or "\\&"
    )


def _safe(line: str) -> str:
    line = line.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    line = line.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{line}" if line.startswith(".") else line


def _bold(words: str) -> str:
    return f"\\fB{_safe(words)}\\fR"


def _italic(words: str) -> str:
    return f"\\fI{_safe(words)}\\fR"


def _main() -> Iterator[str]:
    yield from (
        ".SH SYNOPSIS",
        f"{_bold('poolkit')} [{_italic('OPTION')}...] {_italic('VERB')} [{_italic('ARGUMENT')}...]",
    )
    yield ".SH DESCRIPTION"
    yield text(
        "poolkit manages the storage of virtual machines by libvirt's own documents: a pool's or a volume's XML goes in, working "
        "storage comes out. It is a command and a Python library, and needs no daemon."
    )
    yield ".PP"
    yield text(
        "An argument is given in its place or by its name, options stand anywhere, -- ends them, and no name may be shortened. "
        "SIZE is a number of bytes, or a number with one of libvirt's units (20GiB). Every verb may be repeated: what is done "
        "already is reported as such, and is no error. Verbs have virsh's names as well (pool-start)."
    )
    yield ".SH VERBS"
    for group, title in GROUPS.items():
        yield from (f".SS {_safe(title)} ({_safe(page_of(group))}(1))", ".PD 0")
        for verb in verbs():
            if verb.group == group:
                yield from (".TP 18", _bold(verb.name), text(verb.help))
        yield ".PD"
    yield ".SH OPTIONS"
    yield from _arguments(GLOBAL)
    yield ".SH EXIT STATUS"
    for code, meaning in exit_codes():
        yield from (".TP 6", _bold(str(code)), text(meaning))
    yield ".SH FILES"
    for what, root, user in _PLACES:
        yield from (".TP", f"{_italic(root)}, {_italic(user)}", text(f"{what}: root's, and those of other users"))
    yield from (".PP", text("--root DIR moves all of it into one directory."))
    yield ".SH ENVIRONMENT"
    for names, meaning in _ENVIRONMENT:
        yield from (".TP", _bold(names), text(meaning))
    yield from (".SH EXAMPLES", ".nf", *(_safe(line) for line in _EXAMPLE.splitlines()), ".fi")
    yield ".SH SEE ALSO"
    others = [*map(page_of, GROUPS), "virsh", "qemu-img"]
    yield ",\n".join(f"{_bold(name)}(1)" for name in others)


def _group(those: Iterable[Verb]) -> Iterator[str]:
    those = list(those)
    yield from (".SH SYNOPSIS", ".nf")
    for verb in those:
        yield f"{_bold(f'poolkit {verb.name}')} ..."
    yield from (
        ".fi",
        ".SH DESCRIPTION",
        text("Options of all verbs, exit statuses and files are explained in poolkit(1)."),
    )
    for verb in those:
        yield f".SS {_safe(verb.name)}"
        yield from (".HP 4", _synopsis(verb), ".PP")
        yield text(f"{verb.help[0].upper()}{verb.help[1:]}. {verb.more}")
        if verb.aliases:
            yield from (".PP", text(f"Also: {', '.join(verb.aliases)}."))
        if verb.arguments:
            yield from _arguments(verb.arguments)
        yield from (".PP", text(f"With --json: {SHAPES.get(verb.json, verb.json)}."))
    yield from (".SH SEE ALSO", f"{_bold('poolkit')}(1)")


def _synopsis(verb: Verb) -> str:
    command, name, *rest = synopsis(verb).split(" ")
    return "\n".join(
        [_bold(f"{command} {name}"), *map(_safe, textwrap.wrap(" ".join(rest), 100, break_on_hyphens=False))]
    )


def _arguments(those: Iterable[Argument]) -> Iterator[str]:
    for argument in those:
        if argument.placed:
            head = f"{_italic(argument.value)}, {_bold(argument.option)} {_italic(argument.value)}"
        else:
            head = _bold(f"{argument.short}, {argument.name}" if argument.short else argument.name)
            head += f" {_italic(argument.value)}" if argument.value else ""
        yield from (".TP", head, text(argument.help[0].upper() + argument.help[1:] + "."))
        if argument.choices and argument.value == argument.key.upper():
            yield from (".br", text(f"One of: {', '.join(argument.choices)}."))
