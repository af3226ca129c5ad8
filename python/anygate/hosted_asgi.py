"""The same as :mod:`anygate.hosted`, for ASGI servers."""

from a2wsgi import WSGIMiddleware

from anygate.hosted import application as wsgi_application

application = WSGIMiddleware(wsgi_application)
