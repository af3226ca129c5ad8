"""A small WSGI application, to see that a server works: what it is asked, and how it responds."""

import html
from urllib.parse import parse_qs

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>anygate works</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: #222 }}
  table {{ border-collapse: collapse; width: 100% }}
  td {{ border-top: 1px solid #ddd; padding: .2rem .5rem; vertical-align: top; overflow-wrap: anywhere }}
  td:first-child {{ font-weight: 600; white-space: nowrap }}
  input, button {{ font: inherit; padding: .2rem .5rem }}
</style>
<h1>anygate works</h1>
<p>{greeting}</p>
<form method="post" action="/"><label>Your name: <input name="name"></label> <button>Greet me</button></form>
<h2>What the application sees</h2>
<table>{rows}</table>
</html>
"""


def application(environ, start_response):
    """Show the environ; greet whoever fills in the form."""
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"There is only one page: /\n"]
    greeting = "This page comes from examples/demo/app.py."
    if environ["REQUEST_METHOD"] == "POST":
        form = parse_qs(environ["wsgi.input"].read().decode("utf-8", "replace"))
        greeting = f"Hello, {html.escape(form.get('name', ['stranger'])[0])}!"
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in sorted(environ.items())
    )
    body = PAGE.format(greeting=greeting, rows=rows).encode()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [body]
