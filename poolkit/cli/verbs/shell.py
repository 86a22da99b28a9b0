"""The verbs of the command itself."""

from __future__ import annotations

from poolkit.cli.arguments import data
from poolkit.cli.verbs import Verb

VERBS: tuple[Verb, ...] = (
    Verb(
        "completion", "shell:completion", "print the completion script of a shell",
        (data("shell", "which shell", "word", choices=("bash", "zsh", "fish")),), group="shell", json="none",
        more="For bash: source <(poolkit completion bash). For zsh: the same, after compinit. For fish: poolkit completion fish "
        "| source.",
    ),
    Verb(
        "help", "shell:help_verb", "explain poolkit or a verb",
        (data("verb", "the verb to explain", "verb", "?"),), group="shell", json="verbs",
    ),
)  # fmt: skip
