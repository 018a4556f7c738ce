"""`docs/errors.md`: the tree of errors, from `vscan/errors.py`."""

from __future__ import annotations

import inspect
import re

from scripts.pages.markdown import code, generated_from, page, table
from vscan import errors
from vscan.errors import VScanError

_ARGUMENT = re.compile(r"^\s+(\w+): (.+)$", re.MULTILINE)


def errors_page() -> str:
    """The whole page."""
    summary, tree, rest = (errors.__doc__ or "").split("\n\n", 2)
    wire = (
        "A failed call has the status below, a message of one line that is safe to show, and, in its "
        "`grpc-status-details-bin` trailer, a [`vscan.v1.ErrorDetail`](api.md#errordetail) with the class's name and its "
        "fields. The SDK raises the same classes."
    )
    blocks = [generated_from("`vscan/errors.py`"), "# Errors", summary, f"```text\n{inspect.cleandoc(tree)}\n```"]
    rows = [
        [code(kind.__name__), kind.status.name, "yes" if kind.retryable else "no", _summary(kind)] for kind in error_classes()
    ]
    blocks += [" ".join(rest.split()), wire, table(["Error", "gRPC status", "Retry", "Meaning"], rows)]
    return page([*blocks, "## Fields", *(_fields(kind) for kind in error_classes())])


def error_classes() -> list[type[VScanError]]:
    """Every class of the tree, as its module orders them."""
    members = [member for member in vars(errors).values() if inspect.isclass(member)]
    return [member for member in members if issubclass(member, VScanError)]


def _summary(kind: type[VScanError]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]


def _fields(kind: type[VScanError]) -> str:
    described = dict(_ARGUMENT.findall(kind.__doc__ or ""))
    if not described:
        return ""
    rows = [[code(name), meaning] for name, meaning in described.items()]
    return f"### {kind.__name__}\n\n" + table(["Field", "Meaning"], rows)
