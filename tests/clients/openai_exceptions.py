"""The official OpenAI client, unchanged: refusals as its exceptions, and what openai_client.py leaves out of its answers:
python openai_exceptions.py SERVER MODEL PRETRAINED

Each refusal must arrive as the class that the client has for it, with the server's `code` and `param`. PRETRAINED is a folder of
adapters with sentiment-ft and summary-ft.
"""

import asyncio
import contextlib
import sys
import time

import openai
from served import Server

PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "How many days are in a week?"}]
# Answers of this many tokens outlast every check that is made while they are on their way.
LONG = {"prompt": PROMPT, "max_tokens": 4000, "extra_body": {"ignore_eos": True}, "stream": True}


def connect(server, key="none", **arguments):
    return openai.OpenAI(base_url=server.address + "/v1", api_key=key, **{"max_retries": 0} | arguments)


@contextlib.contextmanager
def raises(kind, code, param=None, status=None):
    """The body of the `with` is refused with this class and code."""
    try:
        yield
    except openai.APIStatusError as error:
        assert type(error) is kind, (type(error), error)
        assert (error.code, error.param) == (code, param), (error.code, error.param, error)
        assert error.message and error.type and error.request_id, error
        assert status is None or error.status_code == status, error
    else:
        raise AssertionError(f"{kind.__name__} {code} was not raised")


def check_bad_requests(client):
    unsupported = {"response_format": {"type": "json_object"}, "reasoning_effort": "low", "tools": [{"type": "function", "function": {"name": "f"}}]}
    for param, value in unsupported.items():
        with raises(openai.BadRequestError, "not_supported", param):
            client.chat.completions.create(model="", messages=MESSAGES, **{param: value})
    for param, value in {"n": 129, "top_p": 0, "max_tokens": -1, "presence_penalty": 3, "stop": ["x"] * 17}.items():
        with raises(openai.BadRequestError, "invalid_value", param):
            client.completions.create(model="", prompt=PROMPT, **{param: value})
    with raises(openai.BadRequestError, "missing_field", "prompt"):
        client.post("/completions", body={}, cast_to=object)


def check_what_is_not_there(client):
    for route, code, param in (("/nowhere", "route_not_found", None), ("/adapters/nobody", "adapter_not_found", None), ("/evaluations/eval_0", "not_found", "evaluation")):
        with raises(openai.NotFoundError, code, param):
            client.get(route, cast_to=object)
    with raises(openai.NotFoundError, "route_not_found"):
        client.embeddings.create(model="", input=PROMPT)


def check_conflicts(client):
    with raises(openai.ConflictError, "adapter_already_loaded"):
        client.post("/adapters", body={"name": "sentiment-ft", "path": "summary-ft"}, cast_to=object)
    with raises(openai.ConflictError, "compare_and_swap_lost"):
        version = client.get("/adapters/summary-ft", cast_to=object)["active_version"]
        client.post("/adapters/summary-ft/activate", body={"version": version, "expected": "0" * 64}, cast_to=object)


def check_unprocessable(client):
    with raises(openai.UnprocessableEntityError, "path_escapes"):
        client.post("/adapters", body={"name": "outside", "path": "../.."}, cast_to=object)
    files = {"config": b"{}", "weights": b"nothing"}
    with raises(openai.UnprocessableEntityError, "corrupt_weights"):
        client.post("/adapters", body={"name": "broken"}, files=files, options={"headers": {"Content-Type": "multipart/form-data"}}, cast_to=object)


def check_too_long(client):
    """There is no class for 413, so it is the one that all of them derive from."""
    with raises(openai.APIStatusError, "prompt_too_long", "prompt", 413):
        client.completions.create(model="", prompt="word " * 20_000, max_tokens=1)


def check_keys(server):
    user, admin = connect(server, "user"), connect(server, "root")
    nobody = connect(server, default_headers={"Authorization": "Basic bm9ib2R5"})
    for client in (connect(server, "guess"), nobody):
        for ask in (client.models.list, lambda client=client: client.completions.create(model="", prompt=PROMPT, max_tokens=1, stream=True)):
            with raises(openai.AuthenticationError, "invalid_api_key", status=401):
                ask()
    for client in (user, admin):
        assert client.completions.create(model="", prompt=PROMPT, max_tokens=1).choices[0].text
    with raises(openai.PermissionDeniedError, "insufficient_scope", status=403):
        user.get("/adapters", cast_to=object)
    with raises(openai.PermissionDeniedError, "insufficient_scope", status=403):
        user.delete("/adapters/sentiment-ft", cast_to=object)
    assert admin.get("/adapters", cast_to=object)["data"]


def occupy(client, streams):
    """Long answers that fill the server; a first chunk says that one is being made, the others wait in the queue."""
    first = client.completions.create(model="", **LONG)
    next(iter(first))
    return [first] + [client.completions.create(model="", **LONG) for _ in range(streams - 1)]


def check_full_queue(server):
    client = connect(server)
    busy = occupy(client, 2)
    with raises(openai.RateLimitError, "queue_full", status=429):
        client.completions.create(model="", prompt=PROMPT, max_tokens=1)
    answers = []

    def note(response):
        """As the first refusal arrives, the server gets free: what the client does next must succeed."""
        answers.append((response.status_code, response.headers.get("retry-after"), time.monotonic(), response.request.headers["x-stainless-retry-count"]))
        for stream in busy:
            stream.close()

    http_client = openai.DefaultHttpxClient(event_hooks={"response": [note]})
    patient = connect(server, max_retries=5, http_client=http_client)
    assert patient.completions.create(model="", prompt=PROMPT, max_tokens=1).choices[0].text
    statuses = [status for status, *_ in answers]
    assert statuses[0] == 429 and statuses[-1] == 200 and set(statuses) == {429, 200}, answers
    assert [retries for *_, retries in answers] == [str(count) for count in range(len(answers))], answers
    (_, seconds, refused, _), (_, _, asked_again, _) = answers[:2]
    # Left to itself the client waits half a second at most before it tries for the first time again.
    assert asked_again - refused >= float(seconds) >= 1, answers


def check_full_memory(server):
    """An adapter in use keeps the only place there is."""
    client = connect(server)
    stream = client.completions.create(**LONG | {"model": "sentiment-ft"})
    next(iter(stream))
    with raises(openai.InternalServerError, "memory_full", status=503):
        client.completions.create(model="summary-ft", prompt=PROMPT, max_tokens=1)
    stream.close()
    patient = connect(server, max_retries=5)
    assert patient.completions.create(model="summary-ft", prompt=PROMPT, max_tokens=1).adapter["name"] == "summary-ft"


def check_draining(server):
    """A server that was told to end goes on with what it has begun and refuses the rest. Comes last."""
    client = connect(server)
    stream = client.completions.create(model="", **LONG)
    next(iter(stream))
    server.process.terminate()
    try:
        # What arrives before the signal is still answered.
        while True:
            client.completions.create(model="", prompt=PROMPT, max_tokens=1)
    except openai.InternalServerError as error:
        assert (error.status_code, error.code, error.response.headers["retry-after"]) == (503, "draining", "5"), error
    later = [chunk for chunk, _ in zip(stream, range(20))]
    assert len(later) == 20 and all(chunk.choices for chunk in later), later
    stream.close()


def check_logprobs(client):
    choice = client.completions.create(model="", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3, echo=True).choices[0]
    logprobs = choice.logprobs
    assert logprobs.token_logprobs[0] is None and "".join(logprobs.tokens) == choice.text, logprobs
    assert [choice.text[offset:][: len(token)] for offset, token in zip(logprobs.text_offset, logprobs.tokens)] == logprobs.tokens
    for token, value, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
        assert top[token] == value <= 0, (token, value, top)
    for value, top in list(zip(logprobs.token_logprobs, logprobs.top_logprobs))[-6:]:
        assert value == max(top.values()) and len(top) == 3, (value, top)
    choice = client.chat.completions.create(model="", messages=MESSAGES, max_tokens=12, temperature=0, logprobs=True, top_logprobs=4).choices[0]
    tokens = choice.logprobs.content
    # The end of the turn has a log-probability and is no part of the text.
    spelled = bytes(byte for token in tokens for byte in token.bytes).decode()
    assert (choice.finish_reason, spelled) == ("stop", choice.message.content + "<|im_end|>"), choice
    for token in tokens:
        values = [alternative.logprob for alternative in token.top_logprobs]
        assert values == sorted(values, reverse=True) and len(values) == 4, values
        assert (token.top_logprobs[0].token, values[0]) == (token.token, token.logprob), token


def gathered(chunks, text):
    """The texts of a stream's choices, in order."""
    texts = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (text(choice) or "")
    return [texts[index] for index in sorted(texts)]


def check_seeds_and_choices(client):
    def texts(**arguments):
        answer = client.completions.create(model="", prompt=PROMPT, max_tokens=12, temperature=1.2, **arguments)
        return [choice.text for choice in answer.choices]

    several = texts(seed=7, n=4)
    assert texts(seed=7, n=4) == several and len(set(several)) > 1, several
    # Each choice is what its own seed gives alone.
    assert several == [text for seed in range(7, 11) for text in texts(seed=seed)], several
    chunks = client.completions.create(model="", prompt=PROMPT, max_tokens=12, temperature=1.2, seed=7, n=4, stream=True)
    assert gathered(chunks, lambda choice: choice.text) == several
    assert len({*texts(n=2), *texts(n=2)}) > 1, "without a seed, every answer is the same"


def check_stops(client):
    arguments = {"model": "", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**arguments).choices[0].message.content
    for stop in ("days", ["nowhere in it", "days", "week"]):
        first = min(whole.find(text) for text in ([stop] if isinstance(stop, str) else stop) if text in whole)
        choice = client.chat.completions.create(**arguments, stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (whole[:first], "stop"), (choice, whole)
        chunks = list(client.chat.completions.create(**arguments, stop=stop, stream=True))
        assert gathered(chunks, lambda choice: choice.delta.content) == [whole[:first]], chunks
        assert chunks[-1].choices[0].finish_reason == "stop", chunks[-1]


def check_streams(client):
    arguments = {"model": "sentiment-ft", "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**arguments)
    content = whole.choices[0].message.content
    # The client's own accumulator asks more of each chunk than a loop over them does.
    with client.chat.completions.stream(**arguments, stream_options={"include_usage": True}) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == content, (deltas, final, content)
    assert (final.usage.completion_tokens, final.choices[0].finish_reason) == (whole.usage.completion_tokens, whole.choices[0].finish_reason)
    response = client.chat.completions.with_raw_response.create(**arguments)
    assert response.headers["x-request-id"] == response.parse()._request_id and response.headers["x-quickchange-receipt"]


def check_asynchronously(server):
    async def ask():
        # With the retries that it has unless told otherwise: a connection may be closed for idleness just as it is used again.
        async with openai.AsyncOpenAI(base_url=server.address + "/v1", api_key="none") as client:
            arguments = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
            models = [model.id async for model in client.models.list()]
            wholes = await asyncio.gather(*(client.chat.completions.create(model=model, **arguments) for model in models))
            streams = await asyncio.gather(*(client.chat.completions.create(model=model, stream=True, **arguments) for model in models))
            for whole, stream in zip(wholes, streams):
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
                assert text == whole.choices[0].message.content, (text, whole)
            async with client.chat.completions.stream(model=models[1], **arguments) as stream:
                assert (await stream.get_final_completion()).choices[0].message.content == wholes[1].choices[0].message.content
            # A stream that is refused is refused before it begins.
            with raises(openai.NotFoundError, "model_not_found", "model"):
                await client.chat.completions.create(model="nobody", stream=True, **arguments)
            abandoned = await client.completions.create(model="", **LONG)
            await anext(aiter(abandoned))
            await abandoned.close()

    asyncio.run(ask())


def main():
    binary, model, pretrained = sys.argv[1:]
    with Server(binary, model, "--pretrained", pretrained) as server:
        client = connect(server)
        checks = [check_bad_requests, check_what_is_not_there, check_conflicts, check_unprocessable, check_too_long]
        checks += [check_logprobs, check_seeds_and_choices, check_stops, check_streams]
        for check in checks:
            check(client)
        check_asynchronously(server)
        check_draining(server)
    others = {
        check_keys: ["--api-key", "user", "--admin-key", "root"],
        check_full_queue: ["--max-running", "1", "--max-queue", "1"],
        # One of these adapters fits, two do not.
        check_full_memory: ["--adapter-memory-bytes", "6000000"],
    }
    for check, flags in others.items():
        with Server(binary, model, "--pretrained", pretrained, *flags) as server:
            check(server)
    print(f"openai exceptions and answers: {len(checks) + 2 + len(others)} passed, 0 failed")


if __name__ == "__main__":
    main()
