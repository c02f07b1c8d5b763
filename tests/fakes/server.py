"""A vendor on loopback: request log, fault plan by (endpoint, n-th call), virtual clock; deterministic.

A fake answers as the vendor's contract says. A fault is told by name or function and changes what goes over the wire
for chosen calls of chosen endpoints, down to bytes that never come.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Call:
    """One request as the server saw it."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]  # lower-case names
    target: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Reply:
    """One answer; `wire` says how its body goes out."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    wire: str = "plain"
    pause_seconds: float = 0.0


def json_reply(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, {name.replace("_", "-"): text for name, text in headers.items()})


Change = Callable[[Reply], Reply]


@dataclass
class Fault:
    """A change of the answers number `calls` (from 1; None: every one) to requests whose path contains `endpoint`."""

    endpoint: str
    change: Change
    calls: frozenset[int] | None
    seen: int = 0


class FakeServer:
    """The base of the fakes: subclasses implement `answer`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.latency_seconds = 0.0
        self.connections = 0
        self._lock = threading.Lock()
        fake = self

        class Handler(_Handler):
            server_fake = fake

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, call: Call) -> Reply:
        raise NotImplementedError

    def fault(self, change: Change, endpoint: str = "", calls: Iterable[int] | None = (1,)) -> None:
        """Plan a fault; the n-th call is counted per fault, among the calls of its endpoint."""
        self.faults.append(Fault(endpoint, change, None if calls is None else frozenset(calls)))

    def reply_to(self, call: Call) -> Reply:
        with self._lock:
            self.calls.append(call)
            due = []
            for fault in self.faults:
                if fault.endpoint in call.path:
                    fault.seen += 1
                    if fault.calls is None or fault.seen in fault.calls:
                        due.append(fault.change)
        reply = self.answer(call)
        for change in due:
            reply = change(reply)
        return reply

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeServer

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        self.fake.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is part of the game


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_fake: FakeServer

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers, self.path, time.monotonic())
        reply = self.server_fake.reply_to(call)
        time.sleep(reply.pause_seconds + self.server_fake.latency_seconds)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        if reply.wire == "reset":
            # An immediate RST instead of a FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if reply.wire == "drop":
            self.close_connection = True
            return
        body = reply.body
        headers = {"Date": self.date_time_string(), "Content-Type": reply.content_type, **reply.headers}
        if reply.wire in ("gzip", "gzip_cut"):
            body = gzip.compress(body, mtime=0)
            body = body[: len(body) * 2 // 3] if reply.wire == "gzip_cut" else body
            headers["Content-Encoding"] = "gzip"
        self.send_response_only(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if reply.wire in ("chunked", "chunked_cut"):
            self._chunks(body, complete=reply.wire == "chunked")
        elif reply.wire in ("unmeasured", "unmeasured_cut"):
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body if reply.wire == "unmeasured" else body[: len(body) * 2 // 3])
            self.close_connection = True
        elif reply.status == 204 or self.command == "HEAD":
            if self.command == "HEAD" and "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self._plain(body, reply.wire)

    def _plain(self, body: bytes, wire: str) -> None:
        if wire == "trickle":
            for index in range(len(body)):
                self.wfile.write(body[index : index + 1])
                self.wfile.flush()
                time.sleep(0.03)
        elif wire == "short":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _chunks(self, body: bytes, *, complete: bool) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = len(body) // 2
        for part in (body[:half], body[half:]):
            if part and (complete or part is not body[half:]):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if complete:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True


# Faults of the wire and of gateways: functions from the right reply to the wrong one.


def status(code: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> Change:
    return lambda _reply: Reply(body, code, {name.replace("_", "-"): text for name, text in headers.items()}, content_type)


def wire(how: str) -> Change:
    return lambda reply: replace(reply, wire=how)


def page(text: str = "<!DOCTYPE html><html><body>Down for maintenance</body></html>", code: int = 200) -> Change:
    return lambda reply: Reply(text.encode(), code, {}, "text/html; charset=utf-8")


def body(content: bytes, content_type: str = "application/json") -> Change:
    return lambda reply: replace(reply, body=content, content_type=content_type)


def half(reply: Reply) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def pause(seconds: float) -> Change:
    return lambda reply: replace(reply, pause_seconds=seconds)


def edit(change: Callable[[dict[str, object]], object]) -> Change:
    """Change the JSON document; the function may return another one or change it in place."""

    def apply(reply: Reply) -> Reply:
        document = json.loads(reply.body)
        changed = change(document)
        return replace(reply, body=json.dumps(document if changed is None else changed).encode())

    return apply
