"""gunicorn's settings for its WSGI workers; NOTICE=off leaves the hook away."""

import os

import rollway_drain

control_socket_disable = True
keepalive = 75
threads = 16
if os.environ.get("NOTICE") != "off":
    pre_request = rollway_drain.gunicorn_pre_request
