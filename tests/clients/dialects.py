"""Clients of other servers, unchanged, against a running server: python dialects.py ADDRESS [ADAPTER]

ADAPTER, unless given sentiment-ft, must be loaded and lie under the adapters root; it is unloaded and loaded again. text_generation,
lorax, huggingface_hub and tritonclient are asked for the same greedy texts as /v1/completions.
"""

import sys

import huggingface_hub
import lorax
import numpy
import requests
import text_generation
import tritonclient.http
from tritonclient.utils import InferenceServerException

PROMPT = "The capital of France is"
OTHER = "### Input:\nThe battery died after two days.\n### Sentiment:"
TOKENS = 8


def completion(address, model, prompt):
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    answer = requests.post(address + "/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def check_text_generation(address, adapter):
    client = text_generation.Client(address)
    expected = completion(address, "", PROMPT)
    whole = client.generate(PROMPT, max_new_tokens=TOKENS, decoder_input_details=True)
    assert whole.generated_text == expected, (whole.generated_text, expected)
    assert whole.details.generated_tokens == len(whole.details.tokens)
    assert whole.details.prefill[0].logprob is None and whole.details.prefill[1].logprob < 0
    pieces = list(client.generate_stream(PROMPT, max_new_tokens=TOKENS))
    assert "".join(piece.token.text for piece in pieces if not piece.token.special) == expected
    assert pieces[-1].generated_text == expected and pieces[-1].details.finish_reason == whole.details.finish_reason
    try:
        client.generate(PROMPT, temperature=5.0)
    except text_generation.errors.ValidationError as error:
        assert "temperature" in str(error), error
    else:
        raise AssertionError("a temperature of 5 was accepted")


def check_lorax(address, adapter):
    client = lorax.Client(address)
    expected = completion(address, adapter, OTHER)
    whole = client.generate(OTHER, adapter_id=adapter, adapter_source="local", max_new_tokens=TOKENS)
    assert whole.generated_text == expected, (whole.generated_text, expected)
    assert whole.details.prompt_tokens > 0
    pieces = list(client.generate_stream(OTHER, adapter_id=adapter, max_new_tokens=TOKENS))
    assert "".join(piece.token.text for piece in pieces if not piece.token.special) == expected
    assert pieces[-1].details.finish_reason == whole.details.finish_reason
    try:
        client.generate(OTHER, adapter_id="nobody")
    except lorax.errors.ValidationError as error:
        assert "nobody" in str(error), error
    else:
        raise AssertionError("an adapter that is not loaded answered")


def check_huggingface_hub(address, adapter):
    client = huggingface_hub.InferenceClient(address)
    expected = completion(address, adapter, OTHER)
    assert client.text_generation(OTHER, max_new_tokens=TOKENS, adapter_id=adapter) == expected
    whole = client.text_generation(OTHER, max_new_tokens=TOKENS, adapter_id=adapter, details=True, top_n_tokens=2)
    assert whole.generated_text == expected and len(whole.details.top_tokens[0]) == 2
    pieces = client.text_generation(OTHER, max_new_tokens=TOKENS, adapter_id=adapter, stream=True)
    # This client hands out marks, such as the end of a turn, as text.
    assert "".join(pieces).startswith(expected)


def check_triton(address, adapter):
    client = tritonclient.http.InferenceServerClient(address.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready()
    assert "model_repository" in client.get_server_metadata()["extensions"]
    version = client.get_model_metadata(adapter)["versions"][0]
    assert client.is_model_ready(adapter) and client.is_model_ready(adapter, version[:8])
    expected = [completion(address, adapter, prompt) for prompt in (OTHER, PROMPT)]
    for binary in (True, False):
        texts = tritonclient.http.InferInput("text_input", [2], "BYTES")
        texts.set_data_from_numpy(numpy.array([OTHER.encode(), PROMPT.encode()], dtype=object), binary_data=binary)
        parameters = {"max_tokens": TOKENS, "temperature": 0.0}
        answer = client.infer(adapter, [texts], model_version=version, parameters=parameters, request_id="7")
        output = [text.decode() if isinstance(text, bytes) else text for text in answer.as_numpy("text_output")]
        assert output == expected, (output, expected)
        assert answer.get_response()["model_version"] == version and answer.get_response()["id"] == "7"
    client.unload_model(adapter)
    assert not client.is_model_ready(adapter)
    client.load_model(adapter)
    assert client.is_model_ready(adapter)
    listed = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert listed[adapter]["version"] == version and listed[adapter]["state"] == "READY"
    try:
        client.load_model("nobody")
    except InferenceServerException as error:
        assert "nobody" in error.message(), error
    else:
        raise AssertionError("an adapter that is nowhere was loaded")


def main():
    address, adapter = sys.argv[1], (sys.argv[2:] or ["sentiment-ft"])[0]
    checks = [check_text_generation, check_lorax, check_huggingface_hub, check_triton]
    for check in checks:
        check(address, adapter)
    print(f"other servers' clients: {len(checks)} passed, 0 failed")


if __name__ == "__main__":
    main()
