"""The server under measurement, as a process of its own. Needs nothing but the standard library."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

from load_client import call


class Server:
    """A server process with a store of its own."""

    def __init__(self, setup):
        self.folder = tempfile.mkdtemp(prefix="quickchange-bench-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [setup["binary"], "--host", "127.0.0.1", "--port", str(self.port), "--model", setup["model"]]
        self.command += ["--store", f"{self.folder}/store", "--threads", str(setup["threads"]), "--log-level", "warn", *setup["flags"]]
        self.launch()

    def launch(self):
        """Starts the process and waits until it is ready."""
        log = open(pathlib.Path(self.folder) / "server.log", "ab")
        # The settings of the caller's shell are for the caller's server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("QUICKCHANGE_")}
        began = time.perf_counter()
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
        log.close()
        try:
            self.wait(began + 300)
        except BaseException:
            self.stop()
            raise
        self.ready_ms = 1e3 * (time.perf_counter() - began)

    def wait(self, until):
        """Returns when the server says that it is ready."""
        while time.perf_counter() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self.process.returncode}:\n{self.last_words()}")
            try:
                if call(self.port, "GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.002)
        raise RuntimeError("the server was not ready within 300 s")

    def last_words(self):
        """The end of its log."""
        return (pathlib.Path(self.folder) / "server.log").read_text()[-2000:]

    def put(self, name, upload, method="POST"):
        """Sends an adapter, what `multipart` made: (milliseconds from the first byte sent to the answer, milliseconds the server reports)."""
        path = "/v1/adapters" if method == "POST" else f"/v1/adapters/{name}"
        body, kind = upload
        began = time.perf_counter()
        status, answer = call(self.port, method, path, body, kind)
        took = 1e3 * (time.perf_counter() - began)
        if status not in (200, 201):
            raise RuntimeError(f"adapter {name} was answered {status}: {answer}")
        return took, answer.get("report", {}).get("load_ms")

    def crash(self):
        """Kills the process without a warning, and starts another on what it left."""
        self.process.kill()
        self.process.wait()
        self.launch()

    def stop(self):
        """Ends the process and removes its store."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
