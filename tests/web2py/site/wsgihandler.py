"""The web2py site's application for any WSGI server, as web2py's own wsgihandler.py makes it."""

import os
import sys

path = os.path.dirname(os.path.abspath(__file__))
os.chdir(path)
sys.path = [path] + [entry for entry in sys.path if entry != path]

from gluon.settings import global_settings  # noqa: E402

global_settings.web2py_runtime_handler = True

import gluon.main  # noqa: E402

application = gluon.main.wsgibase
