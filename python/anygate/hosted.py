"""The application of a :class:`anygate.servers.Task`, for servers that import it in processes of their own."""

from anygate.servers import exported

application = exported().application
