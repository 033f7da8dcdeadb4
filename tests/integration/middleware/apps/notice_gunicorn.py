"""gunicorn's settings for its WSGI workers; NOTICE=off leaves the hook away."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path.cwd()))  # gunicorn reads its settings before it adds the app's folder
import rollway_drain

control_socket_disable = True
keepalive = 75
threads = 16
if os.environ.get("NOTICE") != "off":
    pre_request = rollway_drain.gunicorn_pre_request
