"""A name whose versions are uploaded, activated, rolled back and removed while others ask for it, and which of them a request may have met."""

import random
import threading
import time

from load_client import multipart
from traffic.small_adapters import small_adapter, unservable

ACTIVE_WHEN_ASKED = "every answer names a version that was active between its request and its first byte, and every 404 a name that was gone then"
NAMES_FOLLOW = "after each change of a name the server says the version that must be active"


class Name:
    """A name and the history of what is active under it: [begun, answered, version or None]. One thread changes it, any may ask."""

    def __init__(self, name, files):
        self.name, self.files = name, files
        self.versions, self.history = [], []
        self.present, self.previous = set(), None
        # How often a version, or all of them, went away.
        self.removals = 0

    def active(self):
        return self.history[-1][2]

    def change(self, version):
        """Says that from now on `version` may be active; call `settled` when the server has answered."""
        self.history.append([time.perf_counter(), float("inf"), version])

    def settled(self):
        self.history[-1][1] = time.perf_counter()

    def possible(self, sent, first):
        """The versions that may have been active at some time between `sent` and `first`."""
        found, history = set(), list(self.history)
        for index in range(len(history) - 1, -1, -1):
            begun, answered, version = history[index]
            if begun <= first:
                found.add(version)
                if answered <= sent:
                    break
        return found

    def gone_since(self, time_):
        """Whether the name was away at some time since."""
        return None in self.possible(time_, float("inf"))


class Exchanger(threading.Thread):
    """Changes one name until it is told to stop."""

    def __init__(self, name, client, ledger, stopped, seed, pause=(0.1, 0.8)):
        super().__init__(daemon=True)
        self.target, self.client, self.ledger, self.stopped, self.pause = name, client, ledger, stopped, pause
        self.draw, self.error = random.Random(seed), None
        self.refused = unservable(*name.files[0])

    @staticmethod
    def prepare(name, shapes, numbers):
        """A name with the files of its versions."""
        return Name(name, [small_adapter(shapes, number) for number in numbers])

    def upload_all(self):
        """In quiet: gives the name all its versions, the last one active."""
        target = self.target
        for index, files in enumerate(target.files):
            method, path = ("PUT", f"/v1/adapters/{target.name}") if index else ("POST", "/v1/adapters")
            target.change(None)
            answer = self.send_files(method, path, files, (200, 201))
            if answer is None or answer.status not in (200, 201):
                raise SystemExit(f"soak.py: the server did not take an adapter: {answer and answer.body}")
            version = answer.json()["active_version"]
            target.previous = target.versions[-1] if target.versions else None
            target.versions.append(version)
            target.present.add(version)
            target.history[-1][2] = version
            target.settled()

    def send_files(self, method, path, files, allowed, headers=None, deadline=False):
        body, kind = multipart(self.target.name, *files)
        return self.client.request(method, path, body, {"content-type": kind} | (headers or {}), allowed, deadline)

    def run(self):
        kinds = [self.activate] * 6 + [self.roll_back] * 3 + [self.replace] * 3 + [self.remove_version, self.remove, self.lose_a_swap, self.refuse, self.rehearse, self.break_off]
        # Each kind comes once before chance decides.
        first = sorted(set(kinds), key=lambda kind: (kind.__name__ != "activate", self.draw.random()))
        try:
            while not self.stopped.wait(self.draw.uniform(*self.pause)):
                kind = first[0] if first else self.draw.choice(kinds)
                if kind():
                    self.ledger.did(f"adapters: {kind.__name__.replace('_', ' ')}")
                # A version can be removed only when one is idle.
                if first and kind is first[0]:
                    first.pop(0)
            if self.target.active() is None:
                self.remove()
        except Exception as error:
            self.error = error
            raise
        finally:
            self.client.close()

    def switch(self, answer, version, method, path):
        """Settles a change that the server has answered."""
        self.target.settled()
        if answer is not None and answer.status in (200, 201):
            named = answer.json()["active_version"]
            self.ledger.hold(NAMES_FOLLOW, named == version, f"{method} {path}", version, named)
            return True
        # A refusal leaves the name as it was; both may have been active meanwhile. After a broken connection the server is asked.
        before = self.target.history[-2][2]
        self.target.change(before if answer is not None else self.told(before))
        self.target.settled()
        return False

    def told(self, otherwise):
        """The active version by the server's word."""
        answer = self.client.request("GET", f"/v1/adapters/{self.target.name}", allowed=(200, 404))
        if answer is None or answer.status != 200:
            return None if answer is not None else otherwise
        self.target.previous = answer.json()["previous_version"]
        return answer.json()["active_version"]

    def activate(self):
        target = self.target
        version = self.draw.choice(sorted(target.present - {target.active()}) or [target.active()])
        if version == target.active() or target.active() is None:
            return False
        before = target.active()
        target.change(version)
        path = f"/v1/adapters/{target.name}/activate"
        answer = self.client.request("POST", path, {"version": version} | self.draw.choice([{}, {"expected": before}]))
        if self.switch(answer, version, "POST", path):
            target.previous = before
            return True
        return False

    def roll_back(self):
        target = self.target
        if target.previous is None:
            return False
        before = target.active()
        target.change(target.previous)
        path = f"/v1/adapters/{target.name}/rollback"
        if self.switch(self.client.request("POST", path), target.previous, "POST", path):
            target.previous = before
            return True
        return False

    def replace(self):
        """An upload over the name: of a version that it has, or lacks at the moment."""
        target = self.target
        if target.active() is None:
            return False
        index = self.draw.randrange(len(target.files))
        version, before = target.versions[index], target.active()
        target.change(version)
        path = f"/v1/adapters/{target.name}"
        headers = self.draw.choice([{}, {"if-match": f'"{before}"'}])
        if self.switch(self.send_files("PUT", path, target.files[index], (200, 201), headers), version, "PUT", path):
            target.present.add(version)
            if version != before:
                target.previous = before
            return True
        return False

    def remove_version(self):
        """One that is neither active nor the one before."""
        target = self.target
        idle = sorted(target.present - {target.active(), target.previous})
        if not idle:
            return False
        version = self.draw.choice(idle)
        # Before it is sent: from then on a request for this version may find nothing.
        target.present.discard(version)
        target.removals += 1
        answer = self.client.request("DELETE", f"/v1/adapters/{target.name}?version={version}", allowed=(204,))
        return answer is not None and answer.status == 204

    def remove(self):
        """The whole name, and back again from another of its files."""
        target = self.target
        if target.active() is not None:
            target.present.clear()
            target.removals += 1
            target.change(None)
            answer = self.client.request("DELETE", f"/v1/adapters/{target.name}", allowed=(204,))
            target.settled()
            if answer is None or answer.status != 204:
                return False
            self.stopped.wait(self.draw.uniform(0, 0.3))
        index = self.draw.randrange(len(target.files))
        target.change(target.versions[index])
        answer = self.send_files("POST", "/v1/adapters", target.files[index], (201,))
        if self.switch(answer, target.versions[index], "POST", "/v1/adapters"):
            target.present, target.previous = {target.versions[index]}, None
            return True
        return False

    def unchanged(self, path):
        """Looks whether the active version is still what it was."""
        target = self.target
        answer = self.client.request("GET", f"/v1/adapters/{target.name}")
        if answer is not None and answer.status == 200:
            named = answer.json()["active_version"]
            self.ledger.hold(NAMES_FOLLOW, named == target.active(), f"{path}, which must change nothing", target.active(), named)

    def lose_a_swap(self):
        """A compare-and-swap from a version that is not active."""
        target = self.target
        if target.active() is None:
            return False
        headers = {"if-match": f'"{"0" * 64}"'}
        self.send_files("PUT", f"/v1/adapters/{target.name}", self.draw.choice(target.files), (409,), headers)
        self.unchanged("a lost compare-and-swap")
        return True

    def refuse(self):
        """Files that cannot be served."""
        if self.target.active() is None:
            return False
        wrong = self.draw.choice(sorted(self.refused))
        self.send_files("PUT", f"/v1/adapters/{self.target.name}", self.refused[wrong], (422,))
        self.unchanged(f"an upload with {wrong}")
        return True

    def rehearse(self):
        """An upload that is only tried."""
        if self.target.active() is None:
            return False
        self.send_files("PUT", f"/v1/adapters/{self.target.name}?dry_run=true", self.draw.choice(self.target.files), (200, 201))
        self.unchanged("a dry run")
        return True

    def break_off(self):
        """A client that vanishes in the middle of an upload."""
        target = self.target
        if target.active() is None:
            return False
        body, kind = multipart(target.name, *self.draw.choice(target.files))
        self.client.abandon("PUT", f"/v1/adapters/{target.name}", body, kind, self.draw.random())
        self.unchanged("an upload that was broken off")
        return True
