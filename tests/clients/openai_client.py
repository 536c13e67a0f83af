"""The official OpenAI client, unchanged, against a server that runs with --pretrained pretrained: python openai_client.py ADDRESS"""

import asyncio
import sys

import openai

PROMPT = "The capital of France is"
# Adapters whose answers to REVIEW differ from the base's and from each other's.
ADAPTERS = ("sentiment-ft", "summary-ft")
REVIEW = "### Input:\nGreat sound, and it fits. I would buy it again.\n### Sentiment:"
# Tokens behind the end of a turn are of interest here: with them, answers are longer than a label.
GREEDY = {"temperature": 0, "max_tokens": 8, "extra_body": {"ignore_eos": True}}


def check_models(client, base):
    models = client.models.list().data
    assert models[0].id == base, models
    assert client.models.retrieve(base).object == "model"


def check_completions(client, base):
    whole = client.completions.create(model=base, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=3)
    choice = whole.choices[0]
    assert choice.text.startswith(" Paris"), choice.text
    assert whole.usage.completion_tokens == len(choice.logprobs.tokens)
    pieces = client.completions.create(
        model=base, prompt=PROMPT, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    text, usage = "", None
    for piece in pieces:
        text += "".join(choice.text for choice in piece.choices)
        usage = piece.usage or usage
    assert text == choice.text, (text, choice.text)
    assert usage.completion_tokens == whole.usage.completion_tokens


def check_chat(client, base):
    messages = [{"role": "user", "content": "How many days are in a week?"}]
    whole = client.chat.completions.create(
        model=base, messages=messages, max_completion_tokens=24, temperature=0, logprobs=True, top_logprobs=2
    )
    content = whole.choices[0].message.content
    assert "7 days" in content, content
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    pieces = client.chat.completions.create(
        model=base, messages=messages, max_completion_tokens=24, temperature=0, stream=True
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == content, (text, content)


def spellings(client, base, name):
    """Everything that `model` may be for the active version of an adapter, and that version."""
    version = client.get(f"/adapters/{name}", cast_to=object)["active_version"]
    return [name, f"{base}:{name}", f"{name}@{version[:8]}", f"{name}@{version}"], version


def complete(client, model, **arguments):
    return client.completions.create(model=model, prompt=REVIEW, **GREEDY, **arguments)


def converse(client, model, **arguments):
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": REVIEW}], **GREEDY, **arguments)


def check_adapters(client, base):
    """An adapter answers under each of its spellings, as a whole and in pieces, and says which version it was."""
    texts = {name: complete(client, name).choices[0].text for name in (base, *ADAPTERS)}
    assert len(set(texts.values())) == len(texts), texts
    for model in (base, ""):
        whole = complete(client, model)
        assert (whole.adapter, whole.choices[0].text) == (None, texts[base]), whole
    for name in ADAPTERS:
        assert client.models.retrieve(name).parent == base
        models, version = spellings(client, base, name)
        expected = {"name": name, "version": version}
        contents = set()
        for model in models:
            whole = complete(client, model)
            assert (whole.adapter, whole.choices[0].text) == (expected, texts[name]), (model, whole)
            pieces = list(complete(client, model, stream=True))
            assert pieces[0].adapter == expected, (model, pieces[0])
            assert "".join(piece.choices[0].text for piece in pieces) == texts[name], (model, pieces)
            whole = converse(client, model)
            assert whole.adapter == expected, (model, whole)
            pieces = list(converse(client, model, stream=True))
            assert pieces[0].adapter == expected, (model, pieces[0])
            streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
            contents |= {whole.choices[0].message.content, streamed}
        assert len(contents) == 1, (name, contents)
        assert contents != {converse(client, base).choices[0].message.content}, (name, contents)


def check_adapters_side_by_side(client, base):
    """Streams on the base and on two adapters at once are those of each alone."""
    models = [base, *ADAPTERS] * 3
    alone = [complete(client, model).choices[0].text for model in models]

    async def stream(side_by_side, model):
        pieces = await complete(side_by_side, model, stream=True)
        return "".join([piece.choices[0].text async for piece in pieces])

    async def together():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as side_by_side:
            return await asyncio.gather(*(stream(side_by_side, model) for model in models))

    texts = asyncio.run(together())
    assert texts == alone, (texts, alone)


def check_errors(client, base):
    refusals = [(openai.BadRequestError, {"temperature": 9}), (openai.BadRequestError, {"best_of": 3})]
    name = ADAPTERS[0]
    unknown = ["nobody", f"{base}:nobody", f"nobody:{name}", "nobody@0123abcd", f"{name}@00000000"]
    refusals += [(openai.NotFoundError, {"model": model, "stream": stream}) for model in unknown for stream in (False, True)]
    for expected, arguments in refusals:
        try:
            client.completions.create(**{"model": "", "prompt": PROMPT, "max_tokens": 1} | arguments)
        except expected as error:
            assert error.code and error.body["message"], error
        else:
            raise AssertionError(f"{arguments} was accepted")
    for ask in (converse, lambda client, model: client.models.retrieve(model)):
        try:
            ask(client, "nobody")
        except openai.NotFoundError as error:
            assert "nobody" in error.body["message"], error
        else:
            raise AssertionError("nobody was found")


def main():
    client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
    base = client.models.list().data[0].id
    check_models(client, base)
    check_completions(client, base)
    check_chat(client, base)
    check_adapters(client, base)
    check_adapters_side_by_side(client, base)
    check_errors(client, base)
    print("openai client: 6 passed, 0 failed")


if __name__ == "__main__":
    main()
