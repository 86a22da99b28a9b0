"""For the tests of backends, poolkit's own and those of other packages.

:class:`ScriptedHost` answers programs from a script and writes down what was run: a test is then data, a definition and answers
in, lines out. :class:`BackendContract` is the behaviour that every backend owes: subclass it, say how to make a real
pool, and run it against the real thing. :func:`interrupted` kills a verb at one of its steps, or lets that step fail.
"""

from poolkit.testing.contract import BackendContract
from poolkit.testing.interruption import interrupted
from poolkit.testing.script import Answer, ScriptedHost, transcript, undone

__all__ = ["Answer", "BackendContract", "ScriptedHost", "interrupted", "transcript", "undone"]
