"""The OpenAPI document shows an example of everything that is sent or answered, and each fits its schema.

Asked is docs/openapi.json, which `cargo test openapi` holds against what the server serves."""

import json
import re
from datetime import datetime
from uuid import UUID

import jsonschema_rs

from harness.server import ROOT

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())
TABLE = json.loads((ROOT / "src" / "edge" / "openapi" / "examples.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]
OURS = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")


def followed(part):
    """The part itself, or what it refers to."""
    while "$ref" in part:
        target = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


def example(part):
    """The example that a schema, a parameter or a content says or refers to; KeyError when there is none."""
    part = followed(part)
    if "example" in part:
        return part["example"]
    if part.get("type") == "array":
        return [example(part["items"])]
    return example(part["schema"])


def misfit(schema, value):
    """What is wrong with a value, None if nothing."""
    whole = {**schema, "components": DOCUMENT["components"]}
    found = list(jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors(value))
    return "; ".join(f"{error.instance_path}: {error.message}" for error in found) or None


def is_a_file(content):
    """No text shows what a spreadsheet looks like."""
    return followed(content["schema"]).get("format") == "binary"


def contents():
    """(where, content) of every body, answer and error."""
    for name, operation in OPERATIONS:
        parts = [(f"{name} body", operation["requestBody"])] if "requestBody" in operation else []
        parts += [(f"{name} {status}", answer) for status, answer in operation["responses"].items()]
        for where, part in parts:
            for kind, content in followed(part).get("content", {}).items():
                yield f"{where} {kind}", content


def judged(parts):
    """(where, what is wrong) of each that has no example, or one that does not fit."""
    for where, part, schema in parts:
        try:
            shown = example(part)
        except KeyError:
            yield where, "no example"
            continue
        wrong = misfit(schema, shown)
        if wrong:
            yield where, wrong


def test_every_schema_has_an_example_that_fits_it():
    named = {name: schema for name, schema in SCHEMAS.items() if schema.get("format") != "binary"}
    assert len(named) > 80
    assert not list(judged((name, schema, schema) for name, schema in named.items()))


def test_every_parameter_has_an_example_that_fits_it():
    parameters = [(name, one) for name, operation in OPERATIONS for one in operation.get("parameters", [])]
    assert {one["in"] for _, one in parameters} == {"path", "query", "header"}
    wrong = judged((f"{name} {one['in']} {one['name']}", one, one["schema"]) for name, one in parameters)
    assert not list(wrong)


def test_every_body_and_answer_has_an_example_that_fits_it():
    shown = [(where, content) for where, content in contents() if not is_a_file(content)]
    assert len(shown) > 300
    assert not list(judged((where, content, content["schema"]) for where, content in shown))


def test_every_error_shows_its_own_status():
    seen = set()
    for where, content in contents():
        if where.endswith("application/problem+json"):
            status = int(where.split()[-2])
            shown = content["example"]
            assert shown["status"] == status, where
            seen.add(status)
    assert seen == {400, 401, 403, 404, 409, 413, 415, 422, 429, 503}


def test_examples_say_ids_and_times_as_the_server_does():
    """UUIDs are of version 7, times have six digits, and a task's id says when it was received."""

    def look(schema, value, where):
        schema = followed(schema)
        for part in schema.get("allOf", []):
            look(part, value, where)
        if value is None:
            return
        if schema.get("format") == "uuid":
            assert UUID(value).version == 7, where
        if schema.get("format") == "date-time":
            assert OURS.match(value), f"{where}: {value}"
        for name, member in schema.get("properties", {}).items():
            if isinstance(value, dict) and name in value:
                look(member, value[name], f"{where}.{name}")

    for where, content in contents():
        if " 20" in where and "json" in where and not where.endswith("x-ndjson"):
            shown, schema = example(content), content["schema"]
            for one in shown if isinstance(shown, list) else [shown]:
                look(schema.get("items", schema), one, where)
    task = SCHEMAS["TaskPublic"]["example"]
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    bits = sum(letters.index(letter) << 5 * place for place, letter in enumerate(reversed(task["id"])))
    micros = (bits >> 80) * 1000 + (bits >> 70 & 1023)
    assert micros == round(datetime.fromisoformat(task["received_at"]).timestamp() * 1_000_000)


def test_every_line_of_the_table_is_shown_somewhere():
    """A member that was renamed leaves no example behind."""
    members = {}
    for owner, schema in SCHEMAS.items():
        parts = [schema, *schema.get("allOf", [])]
        members[owner] = {name for part in parts for name in part.get("properties", {})}
    names = set().union(*members.values())
    names |= {one["name"] for _, operation in OPERATIONS for one in operation.get("parameters", [])}
    names |= SCHEMAS.keys() | DOCUMENT["components"]["responses"].keys()
    names |= {f"{owner}.{name}" for owner, own in members.items() for name in own}
    names |= {"/".join(path.split("/")[n : n + 2]) for path in DOCUMENT["paths"] for n in range(path.count("/"))}
    assert set(TABLE) <= names
