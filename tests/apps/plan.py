"""Does what `plan.json` in its folder says, by path, and notes in the file `events` what it did.

* `gate`: wait for a file of this name before anything else.
* `status`, `fields`: as they are.
* `blocks`: texts, given one by one, and `{"gate": name}` to wait between two. `body`, `times`: one text, so often.
* `file`: a path, given with `wsgi.file_wrapper`.
* `etag`: a tag, and 304 for who has it already.
* `raises`: fail, after what was given of the others.

What has no plan is told its environ.
"""

import json
import os

import gates


def note(event):
    # One write, so that lines of several processes do not mix.
    with open("events", "ab", buffering=0) as events:
        events.write(event.encode() + b"\n")


def wait_for(gate):
    note(f"wait {gate}")
    gates.wait_for(gate)


class Given:
    """Blocks that are noted when the server is done with them."""

    def __init__(self, path, plan):
        self.path, self.plan = path, plan

    def __iter__(self):
        for block in self.plan["blocks"]:
            if isinstance(block, dict):
                wait_for(block["gate"])
            else:
                yield block.encode()
        if self.plan.get("raises"):
            raise RuntimeError("as planned")

    def close(self):
        note(f"close {self.path}")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    note(f"{environ['REQUEST_METHOD']} {path}")
    with open("plan.json") as plans:
        plan = json.load(plans).get(path, {})
    body = environ["wsgi.input"].read()
    if "gate" in plan:
        wait_for(plan["gate"])
    if not plan or set(plan) == {"gate"}:
        seen = {key: value for key, value in environ.items() if isinstance(value, str)}
        plan = {"body": json.dumps({**seen, "body_bytes": len(body), "pid": os.getpid()})}
    if plan.get("raises") and "fields" not in plan and "blocks" not in plan:
        raise RuntimeError("as planned")
    fields = [tuple(field) for field in plan.get("fields", [("Content-Type", "text/plain")])]
    status = plan.get("status", "200 OK")
    if "etag" in plan:
        fields.append(("ETag", plan["etag"]))
        # As frameworks compare: weakly.
        if plan["etag"] in environ.get("HTTP_IF_NONE_MATCH", ""):
            start_response("304 Not Modified", fields[1:])
            return []
    start_response(status, fields)
    if plan.get("raises") and "blocks" not in plan:
        raise RuntimeError("as planned")
    if "file" in plan:
        return environ["wsgi.file_wrapper"](open(plan["file"], "rb"))
    if "blocks" in plan:
        return Given(path, plan)
    return [plan.get("body", "").encode() * plan.get("times", 1)]
