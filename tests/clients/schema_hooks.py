"""What schemathesis loads for schema.py: requests that the server can say yes to, and adapters that come back.

The document states types, not which names exist or how long an answer may be: of a thousand requests made from it alone hardly one
reaches a model. With SCHEMA_NARROWED the requests, never the answers, are narrowed to names that exist and to answers of a few tokens.
"""

import os

import hypothesis.strategies
import schemathesis
from schema_words import KEPT, PRETRAINED, VERSIONS, Vocabulary, ask

NARROWED = os.environ["SCHEMA_NARROWED"] == "yes"
METHODS = ("get", "put", "post", "delete")


def inlined(schema, components):
    """A request's schema without references, with what `allOf` lists in one object. None of the requests' schemas refers to itself."""
    if isinstance(schema, list):
        return [inlined(entry, components) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inlined(components[schema["$ref"].rsplit("/", 1)[1]], components)
    # A value that is of two of the listed kinds at once is as good a request.
    plain = {"anyOf" if key == "oneOf" else key: inlined(value, components) for key, value in schema.items() if key != "allOf"}
    for part in inlined(schema.get("allOf", []), components):
        plain["type"] = "object"
        plain["properties"] = plain.get("properties", {}) | part.get("properties", {})
        plain["required"] = [*plain.get("required", ()), *part.get("required", ())]
    return plain


def narrow(route, method, operation, components, vocabulary):
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = vocabulary.parameter(route, parameter["name"], parameter["schema"])
    for media_type in operation.get("requestBody", {}).get("content", {}).values():
        media_type["schema"] = vocabulary.body(f"{method.upper()} {route}", inlined(media_type["schema"], components))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    if not NARROWED:
        return
    vocabulary = Vocabulary()
    for route, operations in raw_schema["paths"].items():
        for method in set(METHODS).intersection(operations):
            narrow(route, method, operations[method], raw_schema["components"]["schemas"], vocabulary)


def whole(value):
    """JSON Schema takes 3.0 for an integer and the server does not. Where that is known, it is in nobody's way."""
    if isinstance(value, dict):
        return {key: whole(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(context, body):
    return whole(body) if NARROWED else body


@schemathesis.hook
def after_call(context, case, response):
    if NARROWED and case.method != "GET" and response.status_code in (200, 201, 204):
        put_back()


def put_back():
    """Adapters that a case removed come back, so that the next one finds them; those that it added go."""
    there = {adapter["id"] for adapter in ask("GET", "/v1/adapters").json()["data"]}
    for name in VERSIONS.keys() - there:
        for folder in VERSIONS[name]:
            ask("PUT", f"/v1/adapters/{name}", json={"path": folder})
    for name in there - VERSIONS.keys():
        ask("DELETE", f"/v1/adapters/{name}")
    added = {dataset["id"] for dataset in ask("GET", "/v1/datasets").json()["data"] if dataset["uploaded"]}
    if KEPT["name"] not in added:
        ask("POST", "/v1/datasets", json=KEPT)
    for name in added - {KEPT["name"]}:
        ask("DELETE", f"/v1/datasets/{name}")


def files(name):
    """A file of an adapter that is served, that file cut off, and something else."""
    content = (PRETRAINED / "sentiment-ft" / name).read_bytes()
    return hypothesis.strategies.sampled_from([content, content[:-1], b"{}"])


RECORD = b'{"input": "One", "output": "positive"}\n'

schemathesis.openapi.format("records", hypothesis.strategies.sampled_from([RECORD, RECORD * 2, b"[]", RECORD[:-3]]))
schemathesis.openapi.format("adapter-config", files("adapter_config.json"))
schemathesis.openapi.format("adapter-weights", files("adapter_model.safetensors"))
schemathesis.openapi.format("adapter-manifest", files("manifest.json"))
