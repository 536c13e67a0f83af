"""An HTTP client that costs little beside the server it measures: one thread, one selector, no parsing but counting events.

It shares two cores with the server, so `Load` also says which share of one core it took itself.
"""

import dataclasses
import http.client
import json
import selectors
import socket
import threading
import time

EVENT = b"data: {"
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclasses.dataclass
class Request:
    """A greedy completion of `tokens` tokens whatever they are. `model` is an adapter's name or None for the base."""

    model: str | None
    prompt: list
    tokens: int

    def bytes(self):
        """The request as it goes over the wire."""
        body = {"model": self.model or "", "prompt": self.prompt, "max_tokens": self.tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        text = json.dumps(body).encode()
        return b"POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text


class Stream:
    """One answer as it arrives."""

    def __init__(self, request):
        self.request = request
        self.start = 0.0
        self.times = []
        self.tail = b""
        self.done = False
        self.head = b""

    def receive(self, data, now):
        """Counts the events in `data`; each is a token that arrived `now`."""
        if not self.head:
            self.head = data
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {data[:600]!r}")
        joined = self.tail + data
        self.times.extend([now] * joined.count(EVENT))
        # One byte short of an event, so that none is counted twice and none is missed.
        self.tail = joined[-(len(EVENT) - 1) :]
        if joined.endswith(LAST_CHUNK):
            self.done = True
            if len(self.times) != self.request.tokens:
                raise RuntimeError(f"{self.request.tokens} tokens were asked for, {len(self.times)} events came")


class Disturbance(threading.Thread):
    """Something that happens while streams run: `action` is called once each of them has `after` tokens."""

    def __init__(self, after, action):
        super().__init__(daemon=True)
        self.after, self.action = after, action
        self.begin = self.end = None
        self.result = self.error = None

    def run(self):
        self.begin = time.perf_counter()
        try:
            self.result = self.action()
        except Exception as error:
            self.error = error
        self.end = time.perf_counter()


class Load:
    """Connections to a server, kept open between requests."""

    def __init__(self, port, count):
        self.sockets = [connect(port) for _ in range(count)]
        self.processor_share = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.sockets:
            connection.close()

    def run(self, requests, disturbance=None):
        """Sends all requests at once and reads until the last answer ends; gives their streams."""
        streams = [Stream(request) for request in requests]
        messages = [request.bytes() for request in requests]
        with selectors.DefaultSelector() as selector:
            for connection, stream in zip(self.sockets, streams):
                selector.register(connection, selectors.EVENT_READ, stream)
            begin, processor = time.perf_counter(), time.thread_time()
            for connection, stream, message in zip(self.sockets, streams, messages):
                stream.start = time.perf_counter()
                connection.sendall(message)
            self.read(selector, streams, disturbance)
            self.processor_share = (time.thread_time() - processor) / (time.perf_counter() - begin)
        return streams

    def read(self, selector, streams, disturbance):
        """Reads what is there until every stream is done."""
        open_streams = len(streams)
        waiting = disturbance
        while open_streams:
            for key, _ in selector.select():
                data = key.fileobj.recv(1 << 16)
                stream = key.data
                if not data:
                    raise RuntimeError("the server closed a connection in the middle of an answer")
                stream.receive(data, time.perf_counter())
                if stream.done:
                    selector.unregister(key.fileobj)
                    open_streams -= 1
            if waiting and all(len(stream.times) >= waiting.after for stream in streams):
                waiting.start()
                waiting = None
        if disturbance:
            disturbance.join()
            if disturbance.error:
                raise disturbance.error


def connect(port):
    """A connection that sends at once what it is given."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def call(port, method, path, body=None, kind="application/json"):
    """A request outside the measured streams: (status, parsed answer or text)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        connection.request(method, path, data, {"content-type": kind} if data else {})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()
    finally:
        connection.close()


def multipart(name, config, weights):
    """An adapter as the server takes it: (body, content type)."""
    border = "quickchange-bench-border"
    parts = [("name", name.encode(), ""), ("config", config, "adapter_config.json"), ("weights", weights, "adapter_model.safetensors")]
    pieces = []
    for field, value, file in parts:
        place = f'; filename="{file}"' if file else ""
        pieces += [f'--{border}\r\ncontent-disposition: form-data; name="{field}"{place}\r\n\r\n'.encode(), value, b"\r\n"]
    pieces.append(f"--{border}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={border}"
