"""A server on 127.0.0.1 that answers in raw bytes, or not at all; bounded in connections and in time."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

#: what is sent, or a function of the connection and the question that it brought
Answer = bytes | Callable[[socket.socket, bytes], None]


class HostileServer:
    """Gives each connection the next answer, the last one again and again; ends by itself after `seconds`."""

    def __init__(
        self, answers: Sequence[Answer], connections: int = 20, seconds: float = 5.0, listens: bool = True
    ) -> None:
        self.answers = list(answers)
        self.listens = listens  # to the question before it answers
        self.questions: list[bytes] = []
        self.finished = 0  # answers that were sent to their end
        self.mistakes: list[Exception] = []
        self.connections = connections
        self.ends = time.monotonic() + seconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(seconds)
        self.place = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.url = f"http://{self.place}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *error: Any) -> None:
        self.ends = 0.0
        self.listener.close()
        assert self.mistakes == []

    def _serve(self) -> None:
        try:
            for _ in range(self.connections):
                connection, _address = self.listener.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()
        except OSError:  # closed by the test, or its time is over
            pass
        self.listener.close()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(max(0.1, self.ends - time.monotonic()))
                self.questions.append(read_question(connection) if self.listens else b"")
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    answer(connection, self.questions[-1])
                else:
                    connection.sendall(answer)
                self.finished += 1
        except OSError:  # whoever asked has gone
            pass
        except Exception as error:  # a mistake in a test's answer must not pass for a server that breaks
            self.mistakes.append(error)


def read_question(connection: socket.socket) -> bytes:
    """The head of a question and its whole body."""
    raw = bytearray()
    while b"\r\n\r\n" not in raw and (more := connection.recv(1 << 16)):
        raw += more
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length and (more := connection.recv(1 << 16)):
        body += more
    return head + b"\r\n\r\n" + body


def key_of(question: bytes) -> bytes:
    """The key that a question brought."""
    line = next(line for line in question.split(b"\r\n") if line.lower().startswith(b"authorization:"))
    return line.split()[-1]


def answer(status: int, body: bytes = b"", headers: bytes = b"", reason: bytes = b"Because") -> bytes:
    """A whole answer with its length; `headers` are lines that end in CRLF."""
    return b"HTTP/1.1 %d %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, reason, headers, len(body), body)


def drips(start: bytes, drop: bytes = b" ", every: float = 0.02, seconds: float = 3.0) -> Answer:
    """`start`, then a little at a time, so that no read of it waits long."""

    def send(connection: socket.socket, question: bytes) -> None:
        connection.sendall(start)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(drop)
            time.sleep(every)

    return send


def silent(start: bytes) -> Answer:
    """`start`, and then nothing until whoever asked has gone, or the server's time is over."""

    def send(connection: socket.socket, question: bytes) -> None:
        connection.sendall(start)
        if not connection.recv(1):
            raise ConnectionResetError

    return send


def resets(start: bytes = b"") -> Answer:
    """`start`, and then a reset instead of an end."""

    def send(connection: socket.socket, question: bytes) -> None:
        connection.sendall(start)
        time.sleep(0.02)  # what was sent is read before the reset comes
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return send


def floods(start: bytes, piece: bytes, most: int) -> Answer:
    """`start`, then the same piece until so many bytes are sent."""

    def send(connection: socket.socket, question: bytes) -> None:
        connection.sendall(start)
        for _ in range(most // len(piece)):
            connection.sendall(piece)

    return send
