"""Whatever bytes come in, a value or a typed error comes out. A few hundred tries each; more with VSCAN_FUZZ_EXAMPLES."""

import os

from hypothesis import HealthCheck, settings

from vscan.errors import InvalidArgument

EXAMPLES = int(os.environ.get("VSCAN_FUZZ_EXAMPLES", "100"))
# No deadline: how long a try takes is the machine's; what must be bounded is counted instead.
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 100)


def well_told(error: InvalidArgument, field: str) -> None:
    """A refusal names its field, and is short whatever it is about."""
    assert error.field.startswith(field)
    assert len(str(error)) < 500
