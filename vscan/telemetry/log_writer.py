"""Log lines are written by a thread of its own, so that nobody who logs waits for whoever reads them.

any thread: format ──▶ queue, bounded ──▶ one thread: write     a pipe that is full and not read holds up this one alone
"""

from __future__ import annotations

import logging
import queue
from logging.handlers import QueueHandler, QueueListener

MAX_LINES = 10_000  # that wait to be written; a few megabytes
_FLUSH_SECONDS = 1.0
_TOLD = "%d lines before this one were lost: nobody read them"


class LogWriter(QueueHandler):
    """Stands before `target`, whose formatter it takes over: a line is made where it is logged, which knows its trace.

    Beyond `max_lines` that wait new ones are dropped, and counted in the next one that is not.

    Attributes:
        lost: lines that were dropped since one was not.
    """

    queue: queue.Queue[logging.LogRecord]

    def __init__(self, target: logging.Handler, *, max_lines: int = MAX_LINES) -> None:
        super().__init__(queue.Queue(max_lines))
        self._target = target
        self.lost = 0
        self.setFormatter(target.formatter)
        target.setFormatter(None)
        QueueListener(self.queue, target).start()  # on a daemon thread: one that is stuck keeps no process

    def enqueue(self, record: logging.LogRecord) -> None:
        """Called with this handler's lock held, which is never held while something is written."""
        try:
            if self.lost:
                self.queue.put_nowait(self._told(self.lost))
                self.lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1

    def flush(self) -> None:
        """What `logging.shutdown` asks for, within a second."""
        self.wait_written(_FLUSH_SECONDS)

    def wait_written(self, timeout_seconds: float) -> bool:
        """Waits until all lines are; False if that takes too long."""
        lines = self.queue
        with lines.all_tasks_done:
            return lines.all_tasks_done.wait_for(lambda: not lines.unfinished_tasks, timeout_seconds)

    def _told(self, lost: int) -> logging.LogRecord:
        record: logging.LogRecord = self.prepare(
            logging.LogRecord(__name__, logging.WARNING, __file__, 0, _TOLD, (lost,), None)
        )
        return record


def write_from_a_thread(target: logging.Handler) -> LogWriter:
    """Puts a writer in the place of a handler of the root logger."""
    root, writer = logging.getLogger(), LogWriter(target)
    root.removeHandler(target)
    root.addHandler(writer)
    return writer
