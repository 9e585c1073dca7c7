"""Which object a word of the command line means: NAME or KIND/NAME."""

from __future__ import annotations

from tunesmith.commandline.connection import Connection, Object
from tunesmith.commandline.outcome import Refusal

#: As kubectl takes them.
KINDS = {
    **dict.fromkeys(("finetunejob", "finetunejobs", "ftj"), "FineTuneJob"),
    **dict.fromkeys(("evalrun", "evalruns", "evr"), "EvalRun"),
    **dict.fromkeys(("adapterdeployment", "adapterdeployments", "adp"), "AdapterDeployment"),
}
#: A bare name is looked for in this order.
ORDER = ("FineTuneJob", "EvalRun", "AdapterDeployment")


def wanted(word: str) -> tuple[tuple[str, ...], str]:
    """The kinds to look among, and the name. Raises Refusal for an unknown kind."""
    kind, slash, name = word.rpartition("/")
    if not slash:
        return ORDER, word
    if kind.lower() not in KINDS:
        raise Refusal(f"there is no kind {kind!r}: write finetunejob, evalrun or adapterdeployment")
    return (KINDS[kind.lower()],), name


def target(connection: Connection, word: str) -> Object:
    """The object, with its kind. Raises Refusal where there is none."""
    kinds, name = wanted(word)
    for kind in kinds:
        if found := connection.find(kind, name):
            return found
    raise Refusal(
        f"there is no {' or '.join(kinds)} {name} in the namespace {connection.namespace}"
    )
