"""Two servers on one bucket: python shared_store.py SERVER MODEL ADAPTER OTHER THIRD

They follow each other's uploads, activations and removals within two seconds, of two compare-and-swaps from the same version exactly one wins, and a
third server that starts later finds all of it. ADAPTER, OTHER and THIRD are folders of adapters of the model.
"""

import concurrent.futures
import pathlib
import sys
import time

import requests
from moto import BUCKET, Moto
from served import Server

FOLLOWS_WITHIN = 2.0
# An answer is asked for every few milliseconds and takes a few itself.
MEASURING = 0.3
ROUNDS = 20


def files(folder):
    folder = pathlib.Path(folder)
    parts = {"config": "adapter_config.json", "weights": "adapter_model.safetensors", "manifest": "manifest.json"}
    return {part: (folder / name).read_bytes() for part, name in parts.items() if (folder / name).exists()}


def active(server, name="shared"):
    answer = requests.get(f"{server.address}/v1/adapters/{name}")
    return answer.json()["active_version"] if answer.status_code == 200 else None


def seconds_until(condition):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 10, "not followed within 10 s"
        time.sleep(0.02)
    return time.monotonic() - started


def text(server, model):
    body = {"model": model, "prompt": "### Input:\nIt broke.\n### Sentiment:", "max_tokens": 6, "temperature": 0, "logprobs": 0}
    return server.post("/v1/completions", body)["choices"][0]


def race(servers, version_now, version_next):
    """Both servers are asked at once to go from one version to the other; returns how many said that they did."""

    def swap(server):
        body = {"version": version_next, "expected": version_now}
        return requests.post(f"{server.address}/v1/adapters/shared/activate", json=body).status_code

    with concurrent.futures.ThreadPoolExecutor(len(servers)) as pool:
        statuses = list(pool.map(swap, servers))
    assert set(statuses) <= {200, 409}, statuses
    return statuses.count(200)


def main(binary, model, adapter, other, third):
    delays = []
    with Moto() as moto:
        flags = ["--threads", "1"]
        location = f"s3://{BUCKET}/quickchange"

        def server():
            return Server(binary, model, *flags, store=location, environment=moto.environment())

        with server() as one, server() as two:
            one.upload("shared", adapter)
            first = active(one)
            delays.append(seconds_until(lambda: active(two) == first))
            assert text(two, "shared") == text(one, "shared")
            assert requests.put(f"{two.address}/v1/adapters/shared", files=files(other)).status_code == 200
            second = active(two)
            delays.append(seconds_until(lambda: active(one) == second))
            assert text(one, "shared") == text(two, "shared")
            print(f"an upload and a replacement are followed within {max(delays):.2f} s", flush=True)

            for round in range(ROUNDS):
                now, following = (second, first) if round % 2 == 0 else (first, second)
                winners = race([one, two], now, following)
                assert winners == 1, f"round {round}: {winners} compare-and-swaps won"
                delays.append(seconds_until(lambda following=following: active(one) == active(two) == following))
            print(f"{ROUNDS} races, one winner each, followed within {max(delays):.2f} s", flush=True)

            # The same through the other two ways to change a name: a replacement with If-Match, and the creation of a name.
            with concurrent.futures.ThreadPoolExecutor(2) as pool:

                def replace(server_and_folder):
                    server, folder = server_and_folder
                    headers = {"if-match": f'"{first}"'}
                    return requests.put(f"{server.address}/v1/adapters/shared", files=files(folder), headers=headers).status_code

                def create(server_and_folder):
                    server, folder = server_and_folder
                    return requests.post(f"{server.address}/v1/adapters", data={"name": "new"}, files=files(folder)).status_code

                settled = {"version": first}
                assert requests.post(f"{one.address}/v1/adapters/shared/activate", json=settled).status_code == 200
                seconds_until(lambda: active(two) == first)
                both = [(one, other), (two, third)]
                assert sorted(pool.map(replace, both)) == [200, 409]
                assert sorted(pool.map(create, both)) == [201, 409]
                for name in ("shared", "new"):
                    seconds_until(lambda name=name: active(one, name) == active(two, name))
            assert requests.post(f"{one.address}/v1/adapters/shared/activate", json={"version": second}).status_code == 200
            seconds_until(lambda: active(one) == active(two) == second)
            print("a replacement with If-Match and a creation have one winner each", flush=True)

            canary = {"version": second if active(one) == first else first, "percent": 100}
            assert requests.post(f"{one.address}/v1/adapters/shared/canary", json=canary).status_code == 200
            delays.append(seconds_until(lambda: requests.get(f"{two.address}/v1/adapters/shared").json()["canary"] == canary))
            with server() as three:
                card = requests.get(f"{three.address}/v1/adapters/shared").json()
                history = requests.get(f"{one.address}/v1/adapters/shared/history").json()["data"]
                assert card["history"] == history and len(history) >= ROUNDS + 2, (card, history)
                assert text(three, f"shared@{first}") == text(one, f"shared@{first}")

            assert requests.delete(f"{two.address}/v1/adapters/shared").status_code == 204
            delays.append(seconds_until(lambda: active(one) is None))
            one.upload("shared", other)
            again = active(one)
            delays.append(seconds_until(lambda: active(two) == again))
    slowest = max(delays)
    print(f"two servers on one bucket: {len(delays)} changes followed, the slowest within {slowest:.2f} s")
    return slowest > FOLLOWS_WITHIN + MEASURING


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
