"""One client of a server: a connection that is kept, and what must hold of every answer, whatever was asked."""

import dataclasses
import http.client
import itertools
import json
import socket
import struct
import threading
import time

OVERLOADED = (429, 503)
ERROR_FIELDS = {"message", "type", "code", "param"}
IDLE_SECONDS = 20.0
# A server may grant every request so much, and end it with 504.
GRANTED_SECONDS = 60.0

NO_UNSTATED_ERROR = "no answer has a status from 500 on, but 503 with Retry-After, and 504 to a request with a deadline or after the time that the server grants any"
REFUSALS_ARE_TRUTHFUL = "every 429 and 503 has a Retry-After in whole seconds and the type overloaded_error"
OWN_REQUEST_ID = "every answer carries an x-request-id, the one that was sent or one that no other answer had"
ERRORS_HAVE_A_SHAPE = "every error is JSON with message, type, code and param"
EXPECTED_STATUS = "every answer has the status that its request must get"
CONNECTIONS_LIVE = "no connection breaks before its answer has come in full"
STREAMS_END = "every stream that is read to its end closes with [DONE], or with an error after its deadline"


@dataclasses.dataclass
class Answer:
    """What came back. `sent` and `first` are the times of the first byte each way, in seconds."""

    status: int
    headers: dict
    body: bytes
    sent: float
    first: float

    def json(self):
        return json.loads(self.body)

    def code(self):
        """The code of an error."""
        return self.json()["error"]["code"]


class Identities:
    """The ids that answers had so far."""

    def __init__(self):
        self.lock, self.seen, self.numbers = threading.Lock(), set(), itertools.count(1)

    def own(self):
        """An id that nobody else sends."""
        return f"soak-{next(self.numbers)}"

    def is_new(self, identity):
        with self.lock:
            return identity not in self.seen and not self.seen.add(identity)


class Client:
    """Sends requests one after another. Every second one names its own id."""

    def __init__(self, port, ledger, identities, timeout=900):
        self.port, self.ledger, self.identities, self.timeout = port, ledger, identities, timeout
        self.connection, self.turn, self.used, self.last_status = None, 0, 0.0, 0

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def send(self, method, path, body, headers):
        """Sends a request and reads the head of its answer: (the answer without a body, http.client's)."""
        # The server closes idle connections after 75 s; whoever was idle for long comes anew, as clients do.
        if time.perf_counter() - self.used > IDLE_SECONDS:
            self.close()
        self.used = time.perf_counter()
        self.connection = self.connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        if not self.connection.sock:
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        headers = ({"content-type": "application/json"} if data is not None else {}) | (headers or {})
        self.turn += 1
        identity = self.identities.own() if self.turn % 2 else None
        if identity:
            headers["x-request-id"] = identity
        sent = time.perf_counter()
        self.connection.request(method, path, data, headers)
        response = self.connection.getresponse()
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, b"", sent, time.perf_counter())
        self.ledger.answered(answer.status)
        self.last_status = answer.status
        found = answer.headers.get("x-request-id")
        own = found == identity if identity else bool(found) and self.identities.is_new(found)
        self.ledger.hold(OWN_REQUEST_ID, own, f"{method} {path}", identity or "an id of its own", found)
        return answer, response

    def request(self, method, path, body=None, headers=None, allowed=(200,), deadline=False):
        """One request and its answer, looked at; None when the connection broke, which is noted as a failure."""
        try:
            answer, response = self.send(method, path, body, headers)
            answer.body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self.ledger.hold(CONNECTIONS_LIVE, False, described(method, path, body), "an answer", repr(error))
            return None
        self.ledger.hold(CONNECTIONS_LIVE, True)
        self.look(answer, described(method, path, body), allowed, deadline)
        return answer

    def look(self, answer, request, allowed, deadline):
        """Holds an answer against what any answer must be, and its status against `allowed`."""
        status = answer.status
        refused = status in OVERLOADED
        deadline = deadline or status == 504 and answer.first - answer.sent >= GRANTED_SECONDS
        stated = status < 500 or status == 503 and "retry-after" in answer.headers or status == 504 and deadline
        self.ledger.hold(NO_UNSTATED_ERROR, stated, request, "a stated status", f"{status} {answer.body!r}")
        if status >= 400:
            error = error_of(answer.body)
            self.ledger.hold(ERRORS_HAVE_A_SHAPE, error is not None, request, "an error object", f"{status} {answer.body!r}")
            if refused and error:
                truthful = answer.headers.get("retry-after", "").isdecimal() and error["type"] == "overloaded_error"
                self.ledger.hold(REFUSALS_ARE_TRUTHFUL, truthful, request, "Retry-After and overloaded_error", f"{status} {answer.headers} {error}")
                self.ledger.note(f"answered {status} {error['code']}")
            if status == 504 and error:
                self.ledger.note(f"answered 504 {error['code']}")
                self.ledger.hold(EXPECTED_STATUS, error["code"] == "deadline_exceeded", request, "deadline_exceeded", answer.body)
        if not refused and not (status == 504 and deadline):
            self.ledger.hold(EXPECTED_STATUS, status in allowed, request, f"one of {sorted(allowed)}", f"{status} {answer.body!r}")

    def stream(self, path, body, headers=None, deadline=False, limit=None, between=None, allowed=(200,)):
        """Reads a stream: (the answer, its events without [DONE]); events are None when it did not come to be one or was given up.

        After `limit` events the client hangs up. `between` is called before each event is read.
        """
        request = described("POST", path, body)
        try:
            answer, response = self.send("POST", path, body, headers)
            if answer.status != 200:
                answer.body = response.read()
                self.look(answer, request, allowed, deadline)
                return answer, None
            events, ended = [], False
            for line in lines(response, between):
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                ended = data == b"[DONE]"
                if not ended:
                    events.append(json.loads(data))
                if limit and len(events) >= limit:
                    self.hang_up()
                    return answer, None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            self.ledger.hold(CONNECTIONS_LIVE, False, request, "a whole stream", repr(error))
            return None, None
        self.ledger.hold(CONNECTIONS_LIVE, True)
        error = next((event["error"] for event in events if "error" in event), None)
        late = deadline and error is not None and error.get("code") == "deadline_exceeded"
        self.ledger.hold(STREAMS_END, late or ended and error is None, request, "[DONE]", events[-1:])
        return answer, None if late or error else events

    def abandon(self, method, path, body, kind, share, wait=0.0):
        """Sends a request, `share` of its body, and vanishes `wait` seconds later, on a connection of its own."""
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout) as connection:
            try:
                connection.sendall(head + body[: int(len(body) * share)])
                time.sleep(wait)
                reset(connection)
            except OSError as error:
                self.ledger.hold(CONNECTIONS_LIVE, False, described(method, path, body), "a connection that takes the request", repr(error))

    def raw(self, data, seconds=30):
        """What the server answers to bytes that may be no HTTP, until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            found = b""
            try:
                connection.sendall(data)
                while piece := connection.recv(1 << 16):
                    found += piece
            except (ConnectionResetError, BrokenPipeError):
                # The server closes with bytes of ours unread, which is a reset; its answer may be lost to it.
                pass
            return found

    def hang_up(self):
        """Breaks the connection so that the server is told at once."""
        if self.connection and self.connection.sock:
            reset(self.connection.sock)
        self.close()


def lines(response, between):
    """The lines of an answer as they come."""
    while True:
        if between:
            between()
        line = response.readline()
        if not line:
            return
        yield line


def reset(connection):
    """Makes the next close of a socket a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def error_of(body):
    """The error object of an answer, None when it has not the shape of one."""
    try:
        error = json.loads(body)["error"]
        return error if set(error) >= ERROR_FIELDS and isinstance(error["message"], str) and error["message"] else None
    except (ValueError, TypeError, KeyError):
        return None


def described(method, path, body):
    """A request as evidence."""
    text = body if isinstance(body, (dict, list)) else f"{len(body)} bytes" if body is not None else ""
    return f"{method} {path} {text}"


def message(path, body, port, headers=()):
    """A POST of JSON as it goes over the wire, for those that need the socket."""
    text = json.dumps(body).encode()
    lines_ = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", "content-type: application/json", f"content-length: {len(text)}", *headers]
    return "\r\n".join(lines_).encode() + b"\r\n\r\n" + text
