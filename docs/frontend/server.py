"""The server of this page: its files, and tokens that it makes with its key. `python server.py`, then http://127.0.0.1:8080."""

import json
import os
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import darkroom

URL = os.environ.get("DARKROOM_URL", "http://127.0.0.1:8000")
PORT = int(os.environ.get("PORT", "8080"))


class Site(SimpleHTTPRequestHandler):
    """Files of this folder, and `POST /token`."""

    def do_POST(self) -> None:  # noqa: D102
        with darkroom.Client(URL, os.environ["DARKROOM_API_KEY"]) as service:
            token = service.token("submit", edits=1, origin=self.headers["Origin"])
        answer = json.dumps({"url": URL, "token": token}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer)


ThreadingHTTPServer(("127.0.0.1", PORT), Site).serve_forever()
