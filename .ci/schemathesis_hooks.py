"""Holds answers to the document more strictly than clients should: a member that it does not name is a mistake."""

import schemathesis


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for schema in objects(raw_schema["components"]["schemas"]):
        schema.setdefault("additionalProperties", False)


def objects(schema):
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)
