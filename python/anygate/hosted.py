"""The application of a :class:`anygate.servers.Task`, for servers that import it in processes of their own."""

import os

from anygate.servers import Task

application = Task.from_json(os.environ["_ANYGATE_TASK"]).application
