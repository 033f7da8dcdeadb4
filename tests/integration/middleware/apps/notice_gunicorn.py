"""gunicorn's settings for its WSGI workers; NOTICE=off leaves the hook away."""

import os
import sys

sys.path.insert(0, os.getcwd())
import rollway_drain  # noqa: E402 - settings are read before gunicorn adds the app's folder

control_socket_disable = True
keepalive = 75
threads = 16
if os.environ.get("NOTICE") != "off":
    pre_request = rollway_drain.gunicorn_pre_request
