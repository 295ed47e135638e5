"""The platform's newer mode: the container stays up, loads its model once, and handles a case for each request."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from mitosis.errors import MitosisError

HOST, PORT = "127.0.0.1", 4743  # Grand Challenge's
OK, CREATED, NOT_FOUND, UNPROCESSABLE = 200, 201, 404, 422

log = logging.getLogger(__name__)


def make_server(process: Callable[[], None], host: str = HOST, port: int = PORT) -> HTTPServer:
    """Return a server: ``GET /health`` gives 200; ``POST /invoke`` runs ``process`` and gives 201, or 422 and why not.

    One request at a time: a case uses the whole machine. Call ``serve_forever`` on the result.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(OK if self.path == "/health" else NOT_FOUND, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))  # a case lies in the input folder, not here
            if self.path != "/invoke":
                self.answer(NOT_FOUND, {})
                return
            try:
                process()
            except MitosisError as error:
                log.error("%s", error)
                self.answer(UNPROCESSABLE, {"error": str(error)})
            else:
                self.answer(CREATED, {})

        def answer(self, status: int, content: dict[str, str]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            log.info(format, *args)

    return HTTPServer((host, port), Handler)
