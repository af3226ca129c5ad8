"""The application of a :class:`anygate.task.Task`, for servers that import it in processes of their own."""

from anygate.task import exported

application = exported().application
