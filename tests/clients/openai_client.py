"""The official OpenAI client, unchanged, against a running server: python openai_client.py ADDRESS"""

import sys

import openai

PROMPT = "The capital of France is"


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


def check_errors(client):
    for expected, arguments in [
        (openai.NotFoundError, {"model": "nobody"}),
        (openai.BadRequestError, {"temperature": 9}),
        (openai.BadRequestError, {"best_of": 3}),
    ]:
        try:
            client.completions.create(**{"model": "", "prompt": PROMPT, "max_tokens": 1} | arguments)
        except expected as error:
            assert error.code and error.body["message"], error
        else:
            raise AssertionError(f"{arguments} was accepted")


def main():
    client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
    base = client.models.list().data[0].id
    check_models(client, base)
    check_completions(client, base)
    check_chat(client, base)
    check_errors(client)
    print("openai client: 4 passed, 0 failed")


if __name__ == "__main__":
    main()
