"""Verbs about the command itself: help and shell completion."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

from poolkit import errors
from poolkit.cli.arguments import GLOBAL, Argument, Values, near, usage_error
from poolkit.cli.verbs import GROUPS, Verb, find, verbs, words
from poolkit.cli.verbs.shapes import SHAPES

if TYPE_CHECKING:
    from poolkit.cli.session import Session


def synopsis(verb: Verb) -> str:
    """``poolkit VERB`` with its arguments, as in a manual page."""
    parts = []
    for argument in verb.arguments:
        if argument.placed:
            word = argument.value
            word = {"?": f"[{word}]", "*": f"[{word}...]", "+": f"{word}..."}.get(argument.times, word)
        else:
            word = argument.name if argument.kind == "flag" else f"{argument.name} {argument.value}"
            word = word if argument.times == "1" else f"[{word}]"
        parts.append(word)
    return " ".join(["poolkit", verb.name, *parts])


def _wrap(text: str, indent: str, first: str | None = None) -> str:
    import textwrap

    return textwrap.fill(text, 100, initial_indent=indent if first is None else first, subsequent_indent=indent)


def _explained(arguments: tuple[Argument, ...]) -> list[str]:
    lines = []
    for argument in arguments:
        word = argument.value if argument.placed else " ".join(filter(None, [argument.name, argument.value]))
        if argument.short:
            word = f"{argument.short}, {word}"
        help = argument.help
        if argument.choices and "|" not in argument.value:
            help += f": {', '.join(argument.choices)}"
        head = f"  {word:<24}  " if len(word) <= 24 else f"  {word}\n" + " " * 28
        lines.append(_wrap(help, " " * 28, head) if "\n" not in head else head.split("\n")[0])
        if "\n" in head:
            lines.append(_wrap(help, " " * 28))
    return lines


def explain(verb: Verb, stream: IO[str] | None = None) -> None:
    """Print the help of one verb."""
    lines = [_wrap(synopsis(verb), " " * 10, "usage: "), "", verb.help[0].upper() + verb.help[1:] + "."]
    if verb.more:
        lines += ["", _wrap(verb.more, "")]
    if verb.aliases:
        lines += ["", f"Also: {', '.join(f'poolkit {a}' for a in verb.aliases)}"]
    if verb.arguments:
        lines += ["", "Arguments:", *_explained(verb.arguments)]
    lines += ["", "Options of all verbs:", *_explained(GLOBAL)]
    lines += ["", _wrap(f"With --json: {SHAPES.get(verb.json, verb.json)}.", "  ", "")]
    (stream or sys.stdout).write("\n".join(lines) + "\n")


def exit_codes() -> list[tuple[int, str]]:
    """Exit statuses and what they mean, from the tree of errors."""
    found: dict[int, list[str]] = {}

    def walk(error: type[errors.PoolkitError]) -> None:
        found.setdefault(error.exit_code, []).append(error.__name__)
        for child in error.__subclasses__():
            if child.__module__ == errors.__name__:
                walk(child)

    walk(errors.PoolkitError)
    codes = [(0, "success, also when there was nothing to do")]
    found[errors.PoolkitError.exit_code].append("and what doctor and recover found wrong")
    codes += [(code, ", ".join(names)) for code, names in sorted(found.items())]
    return sorted([*codes, (70, "an error of poolkit itself"), (141, "the reader of the output went away")])


def overview(stream: IO[str]) -> None:
    """Print the help of the whole command."""
    lines = ["usage: poolkit [OPTION...] VERB [ARGUMENT...]", ""]
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {verb.name:<16}  {verb.help}" for verb in verbs() if verb.group == group]
        lines.append("")
    lines += ["Options:", *_explained(GLOBAL), "", "Exit status:"]
    lines += [_wrap(meaning, " " * 7, f"  {code:>3}  ") for code, meaning in exit_codes()]
    lines += ["", "poolkit VERB --help explains a verb. virsh's names (pool-list, pool-start ...) work as well."]
    stream.write("\n".join(lines) + "\n")


def help_verb(session: Session, values: Values) -> None:
    """``help [VERB]``."""
    chosen = verbs()
    if values.verb is not None:
        verb = find(values.verb)
        if verb is None:
            raise usage_error(f"there is no verb '{errors.shown(values.verb)}'", "help", near(values.verb, words()))
        chosen = (verb,)
    if session.json:
        session.value([_facts(verb) for verb in chosen])
    elif values.verb is None:
        overview(session.out)
    else:
        explain(chosen[0], session.out)


def _facts(verb: Verb) -> dict[str, Any]:
    return {
        "name": verb.name, "aliases": list(verb.aliases), "group": verb.group, "help": verb.help, "json": verb.json,
        "arguments": [
            {"name": a.name, "kind": a.kind, "count": a.times, "choices": list(a.choices), "help": a.help} for a in verb.arguments
        ],
    }  # fmt: skip


def completion(session: Session, values: Values) -> None:
    """``completion SHELL``."""
    session.out.write(SCRIPTS[values.shell])


# Each script hands the words up to the cursor to `poolkit _complete`, which answers with one candidate a line: the word, a tab
# and its description; or with the single line ":file" or ":directory". So the three shells cannot differ, nor lag
# behind the verb table, and no candidate is ever evaluated.
BASH = r"""# bash completion of poolkit: source <(poolkit completion bash)
_poolkit() {
    local cur=${COMP_WORDS[COMP_CWORD]} line
    local -a lines
    COMPREPLY=()
    [[ $cur == "=" ]] && cur=
    mapfile -t lines < <("${COMP_WORDS[0]}" _complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case ${lines[0]-} in
    :file)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    :directory)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
        ;;
    esac
    for line in "${lines[@]}"; do
        COMPREPLY+=("$(printf %q "${line%%$'\t'*}")")
    done
}
complete -F _poolkit poolkit
"""

ZSH = r"""#compdef poolkit
# zsh completion of poolkit: source <(poolkit completion zsh), after compinit
_poolkit() {
    local line
    local -a lines values shown
    lines=("${(@f)$("${words[1]}" _complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    case ${lines[1]-} in
    :file) _files; return ;;
    :directory) _files -/; return ;;
    "") return 1 ;;
    esac
    for line in "${lines[@]}"; do
        values+=("${line%%$'\t'*}")
        shown+=("${line//$'\t'/  -- }")
    done
    compadd -l -d shown -a values
}
if [[ ${funcstack[1]-} == _poolkit ]]; then
    _poolkit "$@"
else
    compdef _poolkit poolkit
fi
"""

FISH = r"""# fish completion of poolkit: poolkit completion fish | source
function __poolkit_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] _complete $words[2..-1] 2>/dev/null)
    switch "$lines[1]"
        case :file
            __fish_complete_path (commandline -ct)
        case :directory
            __fish_complete_directories (commandline -ct)
        case '*'
            printf '%s\n' $lines
    end
end
complete -c poolkit -f -a '(__poolkit_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
