"""LiteLLM and LangChain, unchanged, against a server that runs with --pretrained pretrained: python litellm_langchain.py ADDRESS

For the base model and every adapter in /v1/models: a completion and a chat, whole, streamed, and both again asynchronously, must be the
texts that plain HTTP gets for the same greedy request.
"""

import asyncio
import os
import sys

# LiteLLM asks the network for a list of prices when it is imported, unless told to take its own.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import langchain_core.messages
import langchain_core.output_parsers
import langchain_core.prompts
import langchain_openai
import litellm
import requests

litellm.suppress_debug_info = True

REVIEW = "### Input:\nGreat sound, and it fits. I would buy it again.\n### Sentiment:"
MESSAGES = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "How many days are in a week?"}]
GREEDY = {"temperature": 0, "max_tokens": 8}
# Tokens behind the end of a turn are of interest here: with them, answers are longer than a label.
FURTHER = {"ignore_eos": True}


def post(address, route, body):
    answer = requests.post(address + route, json=body | GREEDY | FURTHER)
    assert answer.status_code == 200, answer.text
    return answer.json()


class Expected:
    """What a model answers to plain HTTP."""

    def __init__(self, address, model):
        self.model = model
        self.completion = post(address, "/v1/completions", {"model": model, "prompt": REVIEW})
        self.text = self.completion["choices"][0]["text"]
        self.chat = post(address, "/v1/chat/completions", {"model": model, "messages": MESSAGES})
        self.content = self.chat["choices"][0]["message"]["content"]

    def equal(self, what, text, content):
        assert (text, content) == (self.text, self.content), (what, self.model, (text, content), (self.text, self.content))


def check_litellm(address, expected):
    arguments = {"model": f"openai/{expected.model}", "api_base": address + "/v1", "api_key": "none", "extra_body": FURTHER, "num_retries": 0} | GREEDY
    whole = litellm.text_completion(prompt=REVIEW, **arguments)
    chat = litellm.completion(messages=MESSAGES, **arguments)
    expected.equal("litellm", whole.choices[0].text, chat.choices[0].message.content)
    assert chat.usage.completion_tokens == expected.chat["usage"]["completion_tokens"], chat.usage
    assert chat.adapter == whole.adapter == expected.chat["adapter"], (chat.adapter, expected.chat["adapter"])
    pieces = litellm.text_completion(prompt=REVIEW, stream=True, **arguments)
    text = "".join(piece.choices[0].text or "" for piece in pieces)
    chunks = list(litellm.completion(messages=MESSAGES, stream=True, **arguments))
    expected.equal("litellm, streamed", text, "".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    rebuilt = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert rebuilt.choices[0].message.content == expected.content, rebuilt

    async def ask():
        whole = await litellm.atext_completion(prompt=REVIEW, **arguments)
        chat = await litellm.acompletion(messages=MESSAGES, **arguments)
        expected.equal("litellm, asynchronous", whole.choices[0].text, chat.choices[0].message.content)
        pieces = await litellm.atext_completion(prompt=REVIEW, stream=True, **arguments)
        text = "".join([piece.choices[0].text or "" async for piece in pieces])
        chunks = await litellm.acompletion(messages=MESSAGES, stream=True, **arguments)
        content = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        expected.equal("litellm, asynchronous and streamed", text, content)

    return ask


def check_langchain(address, expected):
    arguments = {"model": expected.model, "base_url": address + "/v1", "api_key": "none", "extra_body": FURTHER, "max_retries": 0} | GREEDY
    model, chat = langchain_openai.OpenAI(**arguments), langchain_openai.ChatOpenAI(**arguments)
    message = chat.invoke(MESSAGES)
    expected.equal("langchain", model.invoke(REVIEW), message.content)
    assert message.usage_metadata["output_tokens"] == expected.chat["usage"]["completion_tokens"], message
    assert message.response_metadata["model_name"] == expected.model, message
    expected.equal("langchain, streamed", "".join(model.stream(REVIEW)), "".join(chunk.content for chunk in chat.stream(MESSAGES)))
    expected.equal("langchain, in batches", *(outputs[1] for outputs in (model.batch(["One", REVIEW]), [None, chat.batch([MESSAGES] * 2)[1].content])))
    template = langchain_core.prompts.ChatPromptTemplate.from_messages([("system", "Answer {how}."), ("user", "How many days are in a {what}?")])
    chain = template | chat | langchain_core.output_parsers.StrOutputParser()
    assert chain.invoke({"how": "briefly", "what": "week"}) == expected.content
    logged = chat.bind(logprobs=True, top_logprobs=2).invoke([langchain_core.messages.HumanMessage("One")])
    assert len(logged.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2, logged

    async def ask():
        expected.equal("langchain, asynchronous", await model.ainvoke(REVIEW), (await chat.ainvoke(MESSAGES)).content)
        text = "".join([piece async for piece in model.astream(REVIEW)])
        content = "".join([chunk.content async for chunk in chat.astream(MESSAGES)])
        expected.equal("langchain, asynchronous and streamed", text, content)

    return ask


def check_refusals(address):
    """LiteLLM has exceptions of its own for what a server refuses."""
    arguments = {"api_base": address + "/v1", "api_key": "none", "num_retries": 0, "max_tokens": 1}
    for kind, model, changes in ((litellm.NotFoundError, "openai/nobody", {}), (litellm.BadRequestError, "openai/", {"temperature": 9})):
        for ask, prompt in ((litellm.completion, {"messages": MESSAGES}), (litellm.text_completion, {"prompt": REVIEW})):
            try:
                ask(model=model, **prompt, **arguments | changes)
            except kind as error:
                assert "nobody" in str(error) or "temperature" in str(error), error
            else:
                raise AssertionError(f"{model} with {changes} was accepted")


def main():
    address = sys.argv[1]
    models = [entry["id"] for entry in requests.get(address + "/v1/models").json()["data"]]
    expected = [Expected(address, model) for model in models]
    assert len({(each.text, each.content) for each in expected}) == len(models) > 1, "models answer alike, so that nothing tells them apart"
    for name, check in (("litellm", check_litellm), ("langchain", check_langchain)):

        async def asynchronously(asks):
            for ask in asks:
                await ask()

        asyncio.run(asynchronously([check(address, each) for each in expected]))
        print(f"{name}: {len(models)} models passed, 0 failed")
    check_refusals(address)
    print("litellm, refusals: 1 passed, 0 failed")


if __name__ == "__main__":
    main()
