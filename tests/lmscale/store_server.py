"""An S3 server on loopback, which can be made to answer late or not at all."""

import io
import threading
import urllib.request
from collections import Counter
from typing import Any


class Server:
    """moto's S3, a request at a time: by itself it looks whether an object is there and makes it in two steps.

    `deaf`: it does not hear If-None-Match, as S3 until 2024. While `held` ends a name, a PUT of it is not answered.
    The bucket `denied` is somebody else's.
    """

    def __init__(self, *, deaf: bool = False):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        self.app, self.deaf, self.lock = DomainDispatcherApplication(create_backend_app), deaf, threading.Lock()
        self.held: str | None = None
        self.holding, self.go_on = threading.Event(), threading.Event()
        self.requests: Counter[str] = Counter()
        self.server = make_server("127.0.0.1", 0, self.serve, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        # before the lock: a client may be stopped while it sends
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method == "PUT" and self.held and path.endswith(self.held):
            self.holding.set()
            self.go_on.wait()
            start_response("503 Service Unavailable", [])
            return [b""]
        if path.startswith("/denied"):
            start_response("403 Forbidden", [])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>" * (method != "HEAD")]
        if self.deaf:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self.lock:
            self.requests[method] += 1
            return [b"".join(self.app(environ, start_response))]

    def make_bucket(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return f"s3://{name}"

    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
