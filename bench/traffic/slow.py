"""Clients that take their time: connections that stand idle, heads and bodies that come byte by byte, readers that stop."""

import dataclasses
import selectors
import socket
import time

from load_client import connect
from traffic.client import message

IDLE_REQUEST = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


@dataclasses.dataclass
class Trickle:
    """A connection that gets `at_once` and then `rest` a byte a second, and how it ended: seconds until the server closed it, and what it said."""

    at_once: bytes
    rest: bytes
    began: float = 0.0
    sent: int = 0
    received: bytes = b""
    closed: float | None = None

    def status(self):
        """Of the answer, as text."""
        return self.received[9:12].decode() if self.received.startswith(b"HTTP/1.1 ") else "closed" if self.closed is not None else "held"


def trickle(port, kinds, count, seconds):
    """`count` connections for each of `kinds`, {name: (at once, a byte a second)}; {name: [Trickle]} after `seconds`, or when all have ended."""
    found = {name: [Trickle(*data) for _ in range(count)] for name, data in kinds.items()}
    with selectors.DefaultSelector() as selector:
        for one in (one for trickles in found.values() for one in trickles):
            connection = connect(port)
            one.began = time.perf_counter()
            selector.register(connection, selectors.EVENT_READ, one)
            connection.sendall(one.at_once)
        until, due = time.perf_counter() + seconds, time.perf_counter() + 1
        while selector.get_map() and time.perf_counter() < until:
            for key, _ in selector.select(0.1):
                receive(selector, key.fileobj, key.data)
            if time.perf_counter() >= due:
                due += 1
                for key in list(selector.get_map().values()):
                    send_byte(selector, key.fileobj, key.data)
        for key in list(selector.get_map().values()):
            key.fileobj.close()
    return found


def receive(selector, connection, one):
    try:
        data = connection.recv(1 << 16)
    except OSError:
        data = b""
    one.received += data
    # An answer to a request that has not come in full is the end of it.
    if not data or one.received:
        one.closed = time.perf_counter() - one.began
        selector.unregister(connection)
        connection.close()


def send_byte(selector, connection, one):
    if one.sent >= len(one.rest):
        return
    try:
        connection.send(one.rest[one.sent : one.sent + 1])
        one.sent += 1
    except OSError:
        receive(selector, connection, one)


class IdleConnections:
    """Connections that have had an answer each and are kept open. `refused` is how many could not be made."""

    # The server ends a connection that asks nothing within 5 s of its beginning.
    BATCH = 100

    def __init__(self, port, count, seconds):
        self.sockets, self.refused, self.answered = [], 0, 0
        while count > 0:
            made = []
            for _ in range(min(count, self.BATCH)):
                try:
                    made.append(connect(port))
                except OSError:
                    self.refused += 1
            count -= self.BATCH
            self.answered += ask(made, seconds)
            self.sockets += made

    def ask_all(self, seconds):
        """All at once; how many were answered."""
        return ask(self.sockets, seconds)

    def close(self):
        for connection in self.sockets:
            connection.close()


def ask(connections, seconds):
    """Each asks for /health; how many were answered 200 within `seconds`."""
    answered = 0
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            try:
                connection.sendall(IDLE_REQUEST)
                selector.register(connection, selectors.EVENT_READ)
            except OSError:
                pass
        until = time.perf_counter() + seconds
        while selector.get_map() and time.perf_counter() < until:
            for key, _ in selector.select(0.25):
                try:
                    answered += key.fileobj.recv(4096).startswith(b"HTTP/1.1 200")
                except OSError:
                    pass
                selector.unregister(key.fileobj)
    return answered


def streams(port, count, body):
    """`count` streams of whose answers the first bytes have been read, with little room for more; their sockets."""
    found = []
    for _ in range(count):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        connection.connect(("127.0.0.1", port))
        connection.sendall(message("/v1/completions", body, port))
        found.append(connection)
    for connection in found:
        connection.recv(512)
    return found


def read_on(connections, seconds):
    """Reads streams and forgets them, for some time or until the last ends."""
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and time.perf_counter() < until:
            for key, _ in selector.select(0.25):
                try:
                    data = key.fileobj.recv(1 << 16)
                except OSError:
                    data = b""
                if not data or b"[DONE]" in data:
                    selector.unregister(key.fileobj)
