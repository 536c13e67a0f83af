"""Requests that come when they come, whatever became of those before: one thread, one selector, and nothing parsed but heads.

`closed_loop` sends the next request when an answer has ended, so a slow server is asked less. Here times are drawn beforehand.
"""

import dataclasses
import heapq
import selectors
import time

from load_client import connect

# A client hangs up so long after its deadline; the 504 may be on its way.
GRACE = 2.0


@dataclasses.dataclass
class Arrival:
    """A request that is due at `due`, and what became of it. Times are seconds of one clock; `status` is 0 when the connection broke or the client hung up."""

    due: float
    message: bytes
    tokens: int = 0
    retry_of: object = None
    sent: float = 0.0
    ended: float = 0.0
    status: int = 0
    code: str = ""
    retry_after: float | None = None
    error: str = ""
    received: bytes = b""
    length: int | None = None

    def seconds(self):
        return self.ended - self.sent

    def receive(self, data):
        """Takes bytes; gives whether the answer has ended."""
        self.received += data
        if self.length is None:
            head, end, _ = self.received.partition(b"\r\n\r\n")
            if not end:
                return False
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
            self.status = int(head[9:12])
            self.length = len(head) + 4 + int(fields[b"content-length"])
            if b"retry-after" in fields:
                self.retry_after = float(fields[b"retry-after"])
        return len(self.received) >= self.length

    def finish(self, now):
        self.ended = now
        if self.status >= 400 and b'"code":"' in self.received:
            self.code = self.received.split(b'"code":"')[1].split(b'"')[0].decode()
        self.received = b""


class Arrivals:
    """Sends each request when it is due, over connections that are kept; `react` gets each that has ended and may give another."""

    def __init__(self, port, deadline, react=None):
        self.port, self.deadline, self.react = port, deadline, react
        self.idle, self.finished, self.late, self.most_open = [], [], [], 0

    def run(self, arrivals):
        """All of `arrivals`, and what `react` adds; returns when the last has ended."""
        self.queue = [(arrival.due, index, arrival) for index, arrival in enumerate(arrivals)]
        heapq.heapify(self.queue)
        self.number = len(self.queue)
        with selectors.DefaultSelector() as self.selector:
            while self.queue or self.selector.get_map():
                now = time.perf_counter()
                while self.queue and self.queue[0][0] <= now:
                    self.send(heapq.heappop(self.queue)[2])
                wait = max(0.0, min(0.25, self.queue[0][0] - time.perf_counter())) if self.queue else 0.25
                for key, _ in self.selector.select(wait):
                    self.read(key.fileobj, key.data)
                self.hang_up()
        for connection in self.idle:
            connection.close()
        self.idle.clear()
        return self.finished

    def send(self, arrival):
        connection = self.idle.pop() if self.idle else connect(self.port)
        arrival.sent = time.perf_counter()
        self.late.append(arrival.sent - arrival.due)
        self.selector.register(connection, selectors.EVENT_READ, arrival)
        self.most_open = max(self.most_open, len(self.selector.get_map()))
        try:
            connection.sendall(arrival.message)
        except OSError as error:
            self.end(connection, arrival, repr(error))

    def read(self, connection, arrival):
        try:
            data = connection.recv(1 << 16)
        except OSError as error:
            self.end(connection, arrival, repr(error))
            return
        if not data:
            self.end(connection, arrival, "the server closed the connection before its answer")
        elif arrival.receive(data):
            self.end(connection, arrival, "")

    def end(self, connection, arrival, error):
        self.selector.unregister(connection)
        if error:
            arrival.status, arrival.error = 0, error
            connection.close()
        else:
            self.idle.append(connection)
        arrival.finish(time.perf_counter())
        self.finished.append(arrival)
        if self.react and (another := self.react(arrival)):
            self.number += 1
            heapq.heappush(self.queue, (another.due, self.number, another))

    def hang_up(self):
        """Clients whose deadline is long past have gone."""
        limit = time.perf_counter() - self.deadline - GRACE
        overdue = [(key.fileobj, key.data) for key in self.selector.get_map().values() if key.data.sent < limit]
        for connection, arrival in overdue:
            self.end(connection, arrival, "the client hung up after its deadline")
