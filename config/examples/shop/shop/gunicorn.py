"""gunicorn's settings. It finds its socket by LISTEN_FDS; without one (`bin/web` by hand) it binds $PORT itself."""

import os

_DRAIN_FILE = os.environ.get("ROLLWAY_DRAIN_FILE", "")

if "LISTEN_FDS" not in os.environ:
    bind = [f"127.0.0.1:{os.environ.get('PORT', '8080')}"]
worker_class = "gthread"
workers = 1
threads = 8
keepalive = 75
graceful_timeout = 8
loglevel = "warning"
control_socket_disable = True
worker_tmp_dir = os.environ.get("TMPDIR")


def pre_request(worker, request):
    """Drain notice: once the file is there, every answer carries `Connection: close`.

    A WSGI app cannot say so itself: `Connection` belongs to the server (PEP 3333), and gunicorn drops it.
    """
    if _DRAIN_FILE and os.path.exists(_DRAIN_FILE):
        request.force_close()
