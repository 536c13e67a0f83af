"""Clients that send one request after another and keep what they are answered, and the line that says how far they are.

`load_client` counts tokens of requests that all begin at once; here requests follow each other, and answers are compared.
"""

import itertools
import json
import selectors
import sys
import time

from load_client import Stream, connect


class Answer(Stream):
    """An answer whose content is kept. `error` says why it is none."""

    def __init__(self, request):
        super().__init__(request)
        self.pieces = []
        self.error = None

    def receive(self, data, now):
        self.pieces.append(data)
        super().receive(data, now)

    def chunks(self):
        """The events of a whole answer."""
        body, events = b"".join(self.pieces).partition(b"\r\n\r\n")[2], b""
        while body:
            size, _, body = body.partition(b"\r\n")
            size = int(size, 16)
            events, body = events + body[:size], body[size + 2 :]
        lines = [line[6:] for line in events.splitlines() if line.startswith(b"data: ")]
        if lines[-1:] != [b"[DONE]"]:
            raise ValueError("the last event of an answer is not [DONE]")
        return [json.loads(line) for line in lines[:-1]]


def answers(port, clients, requests):
    """Sends `requests`, any iterable, over `clients` connections, the next as soon as an answer ends; yields each answer."""
    requests = iter(requests)
    with selectors.DefaultSelector() as selector:
        for request in itertools.islice(requests, clients):
            begin(selector, connect(port), request)
        while selector.get_map():
            for key, _ in selector.select():
                answer = key.data
                try:
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        raise RuntimeError("the server closed a connection in the middle of an answer")
                    answer.receive(data, time.perf_counter())
                except (OSError, RuntimeError) as error:
                    answer.error = str(error)
                if not (answer.done or answer.error):
                    continue
                connection = key.fileobj
                selector.unregister(connection)
                yield answer
                request = next(requests, None)
                if request is None or answer.error:
                    connection.close()
                if request is not None:
                    begin(selector, connect(port) if answer.error else connection, request)


def begin(selector, connection, request):
    answer = Answer(request)
    selector.register(connection, selectors.EVENT_READ, answer)
    answer.start = time.perf_counter()
    connection.sendall(request.bytes())


class Progress:
    """A line on standard error that is written over on a terminal, and written anew now and then elsewhere."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()
        self.interval = 0.5 if self.terminal else 15
        self.due, self.last = 0.0, None

    def say(self, done, text):
        """`done` is the share that is finished, 0 to 1."""
        filled = round(20 * min(done, 1))
        self.last = f"[{'#' * filled}{'.' * (20 - filled)}] {text}"
        if time.perf_counter() >= self.due:
            self.due = time.perf_counter() + self.interval
            sys.stderr.write(f"\r{self.last}\x1b[K" if self.terminal else f"{self.last}\n")
            sys.stderr.flush()

    def end(self):
        """Leaves the last line standing."""
        sys.stderr.write(f"\r{self.last}\x1b[K\n" if self.terminal else f"{self.last}\n")
        self.due = 0.0
