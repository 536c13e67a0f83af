"""A server that speaks S3 on this machine: `moto_server` from moto[server], and the environment that leads a server of ours there."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import requests
from served import free_port

BUCKET = "adapters"
# moto compares a tag and stores the object in two steps, between which it may answer another request; S3 does not.
ONE_REQUEST_AT_A_TIME = """
import threading, werkzeug.serving
run_simple, lock = werkzeug.serving.run_simple, threading.Lock()
def run_locked(host, port, application, **options):
    def locked(environment, start_response):
        with lock:
            return list(application(environment, start_response))
    run_simple(host, port, locked, **options)
werkzeug.serving.run_simple = run_locked
"""


class Moto:
    """Starts it with an empty bucket on entry and ends it on exit."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        (pathlib.Path(self.folder.name) / "sitecustomize.py").write_text(ONE_REQUEST_AT_A_TIME)
        self.address = f"http://127.0.0.1:{free_port()}"
        program = pathlib.Path(sys.executable).with_name("moto_server")
        command = [str(program), "--host", "127.0.0.1", "--port", self.address.rsplit(":", 1)[1]]
        environment = os.environ | {"PYTHONPATH": self.folder.name}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_ready()
        assert requests.put(f"{self.address}/{BUCKET}").ok
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def wait_until_ready(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                requests.get(self.address)
                return
            except requests.ConnectionError:
                assert self.process.poll() is None, "moto_server ended at once"
                time.sleep(0.05)
        raise AssertionError("moto_server did not answer within 30 s")

    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
