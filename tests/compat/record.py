"""Records what a release says over the wire, for the releases after it to be tested with.

    python -m tests.compat.record REVISION      writes tests/data/compat/COMMIT/tape.json

All of it runs with that revision's code: client, decoder, encoder. The pictures and questions are this checkout's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import redis

from scripts.protos import ROOT
from tests.compat.checkout import checkout, date_of
from tests.compat.deployment import Parts, draw_questions, running
from tests.compat.refusals import record_refusals
from tests.compat.tape import CacheEntry, Call, Tape
from tests.support.redis_server import RedisServer

FOLDER = ROOT / "tests" / "data" / "compat"


def record(revision: str, folder: Path) -> Tape:
    """A tape of one deployment's whole conversation. `folder` is for logs and pictures."""
    draw_questions(folder)
    with checkout(revision) as code, RedisServer() as server:
        tape = Tape(code.name, date_of(revision))
        with running(Parts(code, code, code), folder, redis=server, asked=tape.asked, encoded=tape.encoded) as deployment:
            tape.answers = deployment.ask(folder)
            tape.asked, tape.encoded = _once(tape.asked), _once(tape.encoded)
            tape.refused = record_refusals(deployment.decoder, deployment.encoder)
        with redis.Redis.from_url(server.url) as client:
            names = sorted(client.scan_iter("*"))
            tape.entries = [CacheEntry(name.decode(), value) for name in names if (value := client.get(name)) is not None]
    return tape


def _once(calls: list[Call]) -> list[Call]:
    """Those that were answered; of `Describe`, which a decoder asks its encoder again and again, the first."""
    kept: list[Call] = []
    for call in calls:
        again = call.name == "Describe" and any(call.method == one.method for one in kept)
        if call.code == "OK" and not again:
            kept.append(call)
    return kept


def main() -> None:
    """Records and says what is on the tape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    revision = parser.parse_args().revision
    with tempfile.TemporaryDirectory() as folder:
        tape = record(revision, Path(folder))
    path = FOLDER / tape.commit / "tape.json"
    tape.save(path)
    print(f"{path.relative_to(ROOT)}: {len(tape.asked)} and {len(tape.encoded)} calls, {len(tape.entries)} entries")


if __name__ == "__main__":
    main()
