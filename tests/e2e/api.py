"""A client of the gateway's API that holds each answer against gateway/openapi.yaml."""

import csv
import http.client
import io
import json
import os
import urllib.parse

import jsonschema
import yaml

from harness import ROOT, Failed, check

with open(os.path.join(ROOT, "gateway", "openapi.yaml"), encoding="utf-8") as f:
    API = yaml.safe_load(f)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"no JSON: {self.status} {self.body[:500]!r}") from None

    def rows(self):
        return self.json()["rows"]

    def csv(self):
        return list(csv.DictReader(io.StringIO(self.body.decode(), newline="")))


def described(method, path, answer):
    """The answer must be one that openapi.yaml allows for this path."""
    operation = API["paths"].get(path, {}).get(method.lower().replace("head", "get"))
    if operation is None:
        return
    response = operation["responses"].get(str(answer.status))
    check(response, f"{method} {path}: {answer.status} is not described: {answer.body[:300]!r}")
    if "$ref" in response:
        response = API["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    kind = (answer.headers.get("Content-Type") or "").split(";")[0]
    content = response.get("content", {})
    if not content or method == "HEAD":
        return
    check(kind in content, f"{method} {path} {answer.status}: {kind} is not described")
    if kind == "application/json":
        schema = {"$ref": "#/x", "components": API["components"], "x": content[kind]["schema"]}
        try:
            jsonschema.Draft202012Validator(schema).validate(answer.json())
        except jsonschema.ValidationError as e:
            raise Failed(f"{method} {path}: not as described at {list(e.absolute_path)}: {e.message[:400]}") from None


class Client:
    def __init__(self, port):
        self.port = port

    def ask(self, path, method="GET", headers=None, body=None, seconds=60, **query):
        if query:
            path += "?" + urllib.parse.urlencode({k.rstrip("_"): v for k, v in query.items()}, doseq=True)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request(method, path, body, headers or {})
            got = connection.getresponse()
            answer = Answer(got.status, got.headers, got.read())
        finally:
            connection.close()
        described(method, path.split("?")[0], answer)
        return answer

    def get(self, path, status=200, **query):
        answer = self.ask(path, **query)
        if answer.status != status:
            raise Failed(f"GET {path} {query}: {answer.status}, want {status}: {answer.body[:600].decode(errors='replace')}")
        return answer
