"""What a user of the soak does, one thing after another: requests that are held against their reference, and clients that misbehave."""

import collections
import json
import random
import selectors
import socket
import threading
import time

from load_client import connect
from traffic.cases import essence, essence_of_events, version_of, words
from traffic.client import CONNECTIONS_LIVE, EXPECTED_STATUS, NO_UNSTATED_ERROR, OVERLOADED, REFUSALS_ARE_TRUTHFUL, Client, message, reset
from traffic.malformed import NOT_HTTP, malformed
from traffic.names import ACTIVE_WHEN_ASKED

SAME_AS_IN_QUIET = "every answer is the one that its version gave in quiet, bit for bit"
DEADLINES_HOLD = "no answer comes later than the deadline of its request by more than the slack"
NOT_HTTP_IS_REFUSED = "what is no HTTP is answered 400 or closed, and nothing else"
# A step of the engine and the machine's own delays may lie between a deadline and the answer that says so.
SLACK_SECONDS = 5.0
BURST = 96
# Whoever is refused comes again after some of this, seconds: sooner than Retry-After says, so that the server stays busy.
PATIENCE = (0.1, 1.0)


class World:
    """What every thread of the soak shares."""

    def __init__(self, port, ledger, identities, options):
        self.port, self.ledger, self.identities, self.options = port, ledger, identities, options
        self.stopped = threading.Event()
        # Of models that nobody changes: {name: version}. The base is "base", with None.
        self.fixed = {}
        # Names that are exchanged: {name: Name}.
        self.names = {}
        # {(version, case name): essence}
        self.references = {}
        self.cases, self.comparisons = [], []
        self.served_name, self.deadlines = "", False
        # Kinds of traffic, by name, that come once before chance decides.
        self.kinds_left = collections.deque()

    def client(self):
        return Client(self.port, self.ledger, self.identities)


def take(left):
    """The next of what is left, None when nothing is."""
    try:
        return left.popleft()
    except IndexError:
        return None


class User(threading.Thread):
    """Draws one thing after another to do until it is told to stop."""

    def __init__(self, world, number):
        super().__init__(daemon=True)
        self.world, self.ledger, self.client = world, world.ledger, world.client()
        self.draw = random.Random(f"{world.options.seed}/{number}")
        self.error = None
        weights = {
            self.ask: 30,
            self.follow_stream: 30,
            self.leave_stream: 8,
            self.leave_before_the_answer: 4,
            self.compare: 2,
            self.tokenize: 4,
            self.look_around: 6,
            self.send_no_http: 2,
            self.read_slowly: 2,
            self.ask_with_a_deadline: 6,
            self.ask_for_a_version: 6,
        }
        self.kinds, self.weights = list(weights), list(weights.values())
        if number == 0:
            world.kinds_left.extend(kind.__name__ for kind in self.kinds)

    def run(self):
        try:
            while not self.world.stopped.is_set():
                kind = getattr(self, taken) if (taken := take(self.world.kinds_left)) else self.draw.choices(self.kinds, self.weights)[0]
                if kind() is not False:
                    self.ledger.did(kind.__name__.replace("_", " "))
                if self.client.last_status in OVERLOADED:
                    self.world.stopped.wait(self.draw.uniform(*PATIENCE))
        except Exception as error:
            self.error = error
            raise
        finally:
            self.client.close()

    def choose(self, kinds=("completion", "chat", "data", "results")):
        """A case, and a model to ask: (case, the `model` field or None, the Name when it is exchanged, the version when it is not)."""
        case = self.draw.choice([case for case in self.world.cases if case.kind in kinds])
        if case.task or self.draw.random() < 0.6:
            name = self.draw.choice(list(self.world.fixed))
            spelled = self.draw.choice([None, "", self.world.served_name] if name == "base" else [name, name, f"{self.world.served_name}:{name}"])
            return case, spelled, None, self.world.fixed[name]
        target = self.world.names[self.draw.choice(list(self.world.names))]
        return case, target.name, target, None

    def body(self, case, model):
        return case.body if model is None else case.asked_of(model)

    def judge(self, case, model, target, version, answer, found, named):
        """Holds an answer against what was active, and against its reference."""
        request = f"{case.path} {case.name} of {model!r}"
        possible = target.possible(answer.sent, answer.first) if target else {version}
        self.ledger.hold(ACTIVE_WHEN_ASKED, named in possible, request, possible, named)
        expected = self.world.references.get((named, case.name))
        self.ledger.hold(SAME_AS_IN_QUIET, found == expected, f"{request}, version {named}", expected, found)

    def gone(self, target, answer, request):
        """A 404 is right when the name was away."""
        if answer.status == 404:
            self.ledger.hold(ACTIVE_WHEN_ASKED, None in target.possible(answer.sent, answer.first), request, "an answer: the name was there all along", answer.body)

    def ask(self):
        case, model, target, version = self.choose()
        answer = self.client.request("POST", case.path, self.body(case, model), allowed=(200, 404) if target else (200,))
        if answer is None:
            return
        if answer.status == 200:
            whole = answer.json()
            self.judge(case, model, target, version, answer, essence(case, whole), version_of(whole))
        elif target:
            self.gone(target, answer, f"{case.path} of {model}")

    def follow_stream(self):
        self.stream(None)

    def read_slowly(self):
        self.stream(lambda: time.sleep(self.draw.uniform(0.01, 0.1)))

    def stream(self, between):
        case, model, target, version = self.choose(("completion", "chat"))
        usage = self.draw.choice([{}, {"stream_options": {"include_usage": True}}])
        body = self.body(case, model) | {"stream": True} | usage
        answer, events = self.client.stream(case.path, body, between=between, allowed=(200, 404) if target else (200,))
        if events is not None:
            self.judge(case, model, target, version, answer, essence_of_events(case, events), version_of(events[0]))
        elif answer is not None and target:
            self.gone(target, answer, f"{case.path} of {model}")

    def leave_stream(self):
        """Reads some events and hangs up."""
        model = self.draw.choice([name for name in self.world.fixed if name != "base"] + [""])
        body = {"model": model, "prompt": words(self.draw.randrange(10**6), 40), "max_tokens": 200, "temperature": 0, "ignore_eos": True, "stream": True}
        self.client.stream("/v1/completions", body, limit=self.draw.randint(1, 20))

    def leave_before_the_answer(self):
        """Sends a request for much, streaming or not, whole or in part, and vanishes."""
        path, body = self.draw.choice([
            ("/v1/completions", {"prompt": words(self.draw.randrange(10**6), 300), "max_tokens": 400, "n": 2, "ignore_eos": True, "stream": self.draw.random() < 0.5}),
            ("/v1/classify", {"task": "sentiment", "inputs": [words(self.draw.randrange(10**6), 40) for _ in range(20)]}),
            ("/v1/score", {"pairs": [{"context": words(number, 60), "continuation": " and so on"} for number in range(20)]}),
            ("/v1/compare", {"models": ["base", next(iter(self.world.fixed))], "prompts": [words(self.draw.randrange(10**6), 40)], "max_tokens": 100}),
        ])
        share = self.draw.choice([1.0, 1.0, 1.0, self.draw.random()])
        self.client.abandon("POST", path, json.dumps(body).encode(), "application/json", share, self.draw.choice([0.0, self.draw.uniform(0, 0.5)]))

    def compare(self):
        case = self.draw.choice(self.world.comparisons)
        answer = self.client.request("POST", case.path, case.body)
        if answer is not None and answer.status == 200:
            found, expected = essence(case, answer.json()), self.world.references[None, case.name]
            self.ledger.hold(SAME_AS_IN_QUIET, found == expected, case.name, expected, found)

    def tokenize(self):
        """There and back again."""
        text = words(self.draw.randrange(10**6), self.draw.randint(1, 200)) + self.draw.choice(["", " é ü 東京 🎉", "\n\n\t"])
        answer = self.client.request("POST", "/tokenize", {"prompt": text, "add_special_tokens": False})
        if answer is None or answer.status != 200:
            return
        back = self.client.request("POST", "/detokenize", {"tokens": answer.json()["tokens"]})
        if back is not None and back.status == 200:
            self.ledger.hold(SAME_AS_IN_QUIET, back.json()["prompt"] == text, "/tokenize and /detokenize", text, back.json())

    def look_around(self):
        path = self.draw.choice(["/v1/models", "/v1/adapters", "/v1/tasks", "/v1/evaluations", "/v1/datasets", "/health", "/ready", "/version", "/tokenizer_info", "/openapi.json"])
        self.client.request("GET", path)

    def send_no_http(self):
        data = self.draw.choice(NOT_HTTP)
        found = self.client.raw(data)
        refused = not found or found.startswith((b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 431"))
        self.ledger.hold(NOT_HTTP_IS_REFUSED, refused, data[:80], "400", found[:300])

    def ask_with_a_deadline(self):
        """More than can be done in time, and a whole answer where there is time enough."""
        if not self.world.deadlines:
            return False
        if self.draw.random() < 0.5:
            case = self.draw.choice([case for case in self.world.cases if not case.task])
            answer = self.client.request("POST", case.path, self.body(case, None), {"x-request-timeout": "60"}, deadline=True)
            if answer is not None and answer.status == 200:
                self.judge(case, None, None, None, answer, essence(case, answer.json()), version_of(answer.json()))
            return None
        seconds = self.draw.choice([0.001, 0.3, 1, 2])
        body = {"prompt": words(self.draw.randrange(10**6), 100), "max_tokens": 2000, "temperature": 0, "ignore_eos": True}
        headers = {"x-request-timeout": str(seconds)}
        began = time.perf_counter()
        if self.draw.random() < 0.5:
            self.client.stream("/v1/completions", body | {"stream": True}, headers, deadline=True)
        else:
            self.client.request("POST", "/v1/completions", body, headers, deadline=True)
        took = time.perf_counter() - began
        if self.world.options.timing:
            self.ledger.hold(DEADLINES_HOLD, took <= seconds + SLACK_SECONDS, f"x-request-timeout: {seconds}", f"at most {seconds + SLACK_SECONDS} s", f"{took:.2f} s")
        return None

    def ask_for_a_version(self):
        """By its digest, active or not."""
        target = self.world.names[self.draw.choice(list(self.world.names))]
        case = self.draw.choice([case for case in self.world.cases if case.kind == "completion"])
        version, changes = self.draw.choice(target.versions), target.removals
        there = version in target.present
        model = f"{target.name}@{version[: self.draw.choice([8, 16, 64])]}"
        answer = self.client.request("POST", case.path, case.asked_of(model), allowed=(200, 404))
        if answer is None:
            return
        if answer.status == 200:
            whole = answer.json()
            self.ledger.hold(ACTIVE_WHEN_ASKED, version_of(whole) == version, f"{case.path} of {model}", version, version_of(whole))
            found, expected = essence(case, whole), self.world.references[version, case.name]
            self.ledger.hold(SAME_AS_IN_QUIET, found == expected, f"{case.path} {case.name} of {model}", expected, found)
        elif answer.status == 404:
            stayed = there and version in target.present and changes == target.removals
            self.ledger.hold(ACTIVE_WHEN_ASKED, not stayed, f"{case.path} of {model}", "an answer: the version was there all along", answer.body)


class Vandal(threading.Thread):
    """Sends everything that is malformed, over and over, in another order each time."""

    def __init__(self, world, pause):
        super().__init__(daemon=True)
        self.world, self.ledger, self.client, self.pause, self.error = world, world.ledger, world.client(), pause, None
        self.draw = random.Random(f"{world.options.seed}/vandal")
        self.malformed = malformed(next(name for name in world.fixed if name != "base"), next(iter(world.names.values())).files[0])

    def run(self):
        try:
            while not self.world.stopped.is_set():
                for what, method, path, body, headers, status in self.draw.sample(self.malformed, len(self.malformed)):
                    if self.world.stopped.wait(self.pause):
                        break
                    self.client.request(method, path, body, headers, allowed=(status,))
                    self.ledger.did(f"malformed: {what}")
        except Exception as error:
            self.error = error
            raise
        finally:
            self.client.close()


class Crowd(threading.Thread):
    """Now and then more requests at once than the server takes; each is answered in full or refused at once."""

    def __init__(self, world, pause):
        super().__init__(daemon=True)
        self.world, self.ledger, self.pause, self.error = world, world.ledger, pause, None
        self.case = next(case for case in world.cases if case.name == "completion-1")

    def run(self):
        try:
            while not self.world.stopped.wait(self.pause):
                self.burst()
                self.ledger.did("crowd of requests at once")
        except Exception as error:
            self.error = error
            raise

    def burst(self):
        """All at once, each on a connection of its own, closed by the server after the answer."""
        data = message(self.case.path, self.case.asked_of(""), self.world.port, ["connection: close"])
        received = {}
        with selectors.DefaultSelector() as selector:
            for _ in range(BURST):
                connection = connect(self.world.port)
                received[connection] = b""
                selector.register(connection, selectors.EVENT_READ)
            for connection in received:
                connection.sendall(data)
            until = time.perf_counter() + 120
            while selector.get_map() and time.perf_counter() < until:
                for key, _ in selector.select(1):
                    try:
                        piece = key.fileobj.recv(1 << 16)
                    except OSError:
                        piece = b""
                    received[key.fileobj] += piece
                    if not piece:
                        selector.unregister(key.fileobj)
        for connection, answer in received.items():
            connection.close()
            self.look(answer)

    def look(self, received):
        head, _, body = received.partition(b"\r\n\r\n")
        whole = head.startswith(b"HTTP/1.1 ") and body.endswith(b"}")
        if not self.ledger.hold(CONNECTIONS_LIVE, whole, "one of many requests at once", "an answer", received[:300]):
            return
        status = int(head[9:12])
        self.ledger.answered(status)
        if status == 200:
            found, expected = essence(self.case, json.loads(body)), self.world.references[None, self.case.name]
            self.ledger.hold(SAME_AS_IN_QUIET, found == expected, "one of many requests at once", expected, found)
            return
        refused = status == 429 or status == 503
        self.ledger.hold(NO_UNSTATED_ERROR, status < 500 or status == 503, "one of many requests at once", "200 or 429", head + body)
        if self.ledger.hold(EXPECTED_STATUS, refused, "one of many requests at once", "200 or 429", head + body):
            truthful = any(line.lower().startswith(b"retry-after:") and line.split(b":")[1].strip().isdigit() for line in head.split(b"\r\n"))
            self.ledger.hold(REFUSALS_ARE_TRUTHFUL, truthful, "one of many requests at once", "Retry-After", head + body)
            self.ledger.note(f"answered {status} {json.loads(body)['error']['code']}")


class StalledReader(threading.Thread):
    """Asks for more than sockets hold, reads a little, stands still, and goes away or reads on."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.ledger, self.error = world, world.ledger, None
        self.draw = random.Random(f"{world.options.seed}/stalled")

    def run(self):
        try:
            while not self.world.stopped.wait(1.0):
                self.stall()
                self.ledger.did("stalled reader")
        except Exception as error:
            self.error = error
            raise

    def stall(self):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(120)
        try:
            connection.connect(("127.0.0.1", self.world.port))
            body = {"prompt": words(self.draw.randrange(10**6), 20), "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 20}
            connection.sendall(message("/v1/completions", body, self.world.port))
            connection.recv(1000)
            self.world.stopped.wait(self.draw.uniform(1, 10))
            if self.draw.random() < 0.5:
                while not self.world.stopped.is_set() and b"[DONE]" not in connection.recv(1 << 14):
                    pass
            reset(connection)
        except OSError as error:
            # Whoever reads so slowly may be sent away.
            self.ledger.note(f"a stalled reader was sent away: {type(error).__name__}")
        finally:
            connection.close()
