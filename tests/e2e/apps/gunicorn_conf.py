"""What gunicorn needs to take the drain notice: it drops a Connection header that the app sets, but has this hook."""

import os

wsgi_app = "wsgi_app:app"
worker_class = "gthread"
threads = 8
control_socket_disable = True


def pre_request(worker: object, request: object) -> None:
    if os.path.exists(os.environ["ROLLWAY_DRAIN_FILE"]):
        request.force_close()  # type: ignore[attr-defined]  # gunicorn.http.message.Request, which ships no types
