"""Serve a Python WSGI application.

From the shell: ``anygate myapp:app``. From Python::

    import anygate

    anygate.serve(app, port=8000, workers=2)

    with anygate.Server(app, port=0) as server:
        print(server.url)

Under a server of another package, with the same policies around the application::

    application = anygate.wsgihandler(app, config="anygate.toml")

Every option of the command line is a keyword argument here; ``docs/settings.md`` lists them.
"""

from anygate._anygate import __version__
from anygate.middleware import wsgihandler
from anygate.server import Server, run, serve
from anygate.timeouts import RequestTimeout

__all__ = ["RequestTimeout", "Server", "__version__", "run", "serve", "wsgihandler"]
