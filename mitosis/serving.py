"""The platform's newer mode: the container stays up, loads its model once, and handles a case for each request.

Threads answer, so that ``GET /health`` is heard during a case. Cases run one at a time in the thread that calls
``serve_forever``: the main one, where SIGTERM arrives and half-written files are removed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Event, Lock, Thread

from mitosis.config import one_line
from mitosis.errors import InputError, MitosisError, RuntimeUnavailableError
from mitosis.memory import is_exhausted, message

HOST, PORT = "0.0.0.0", 4743  # Grand Challenge asks from outside the container
OK, CREATED, NOT_FOUND, UNPROCESSABLE, BROKEN, BUSY = 200, 201, 404, 422, 500, 503

log = logging.getLogger(__name__)


@dataclass
class Job:
    """One request for a case; ``status`` and ``reason`` hold once ``done`` is set."""

    done: Event = field(default_factory=Event)
    status: int = BROKEN
    reason: str = ""


class CaseServer:
    """``GET /health`` gives 200; ``POST /invoke`` runs ``process`` and gives 201, or 422 (the case) or 500, and why.

    A request during a case gives 503: the case in the input folder is one, and a queued request, whose client may have
    given up, would begin by removing the result that was just answered for.
    """

    def __init__(self, process: Callable[[], None], host: str = HOST, port: int = PORT) -> None:
        """Take the port; raises RuntimeUnavailableError where another program has it."""
        self._process = process
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        try:
            self._http = ThreadingHTTPServer((host, port), handler(self._jobs, Lock()))
        except OSError as error:
            raise RuntimeUnavailableError(f"--port {port}: cannot be listened on ({one_line(error)})") from error

    @property
    def port(self) -> int:
        """Where it listens; a free port was chosen when 0 was asked for."""
        return self._http.server_port

    def serve_forever(self) -> None:
        """Answer until the process is told to end."""
        Thread(target=self._http.serve_forever, daemon=True).start()
        try:
            while True:
                job = self._jobs.get()
                job.status, job.reason = self.run_case()
                job.done.set()
        finally:
            self._http.shutdown()
            self._http.server_close()

    def run_case(self) -> tuple[int, str]:
        """Process what lies in the input folder now; returns the answer's status and the reason of a failure."""
        try:
            self._process()
        except MitosisError as error:
            log.error("%s", error)
            return UNPROCESSABLE if isinstance(error, InputError) else BROKEN, str(error)
        except Exception as error:
            log.exception("the case failed")
            return BROKEN, message() if is_exhausted(error) else f"unexpected {type(error).__name__}: {error}"
        return CREATED, ""


def handler(jobs: SimpleQueue[Job], free: Lock) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests and puts cases into ``jobs``, one at a time: who holds ``free``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(OK if self.path == "/health" else NOT_FOUND)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))  # a case lies in the input folder, not here
            if self.path != "/invoke":
                self.answer(NOT_FOUND)
                return
            if not free.acquire(blocking=False):
                self.answer(BUSY, "another case is being processed; ask again when it is answered")
                return
            try:
                job = Job()
                jobs.put(job)
                job.done.wait()
            finally:
                free.release()
            self.answer(job.status, job.reason)

        def answer(self, status: int, reason: str = "") -> None:
            body = json.dumps({"error": reason} if reason else {}).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                log.warning("%s %s: the client has gone before the answer", self.command, self.path)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            log.info(format, *args)

    return Handler
