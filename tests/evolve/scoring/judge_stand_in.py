"""An OpenAI-compatible endpoint on this machine that does as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], str]


def completion(text: Any) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


class StandIn:
    """What the endpoint was asked, and how it answers.

    Attributes:
        url: The base URL.
        bodies: Every request's body, in the order of arrival.
        keys: Every request's Authorization header.
        answer: Body -> reply, for requests that the script leaves over.
        script: Replies for the first requests; a function may do anything, such as wait.
    """

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[dict[str, Any]], Reply] = lambda body: completion("Score: 5")
        self.script: list[Reply | Callable[[], Reply]] = []
        self.lock = threading.Lock()
        self.at_once = 0
        self.most_at_once = 0

    def reply(self, body: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            self.bodies.append(body)
            self.keys.append(key)
            scripted = self.script.pop(0) if self.script else None
        if scripted is None:
            return self.answer(body)
        return scripted() if callable(scripted) else scripted


@contextmanager
def serving() -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with stand_in.lock:
                stand_in.at_once += 1
                stand_in.most_at_once = max(stand_in.most_at_once, stand_in.at_once)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path
            status, headers, text = stand_in.reply(body, self.headers.get("Authorization"))
            if path != "/v1/chat/completions":
                status, headers, text = 404, {}, "no such path"
            with stand_in.lock:
                stand_in.at_once -= 1
            content = text.encode()
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client did not wait

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def after(seconds: float, reply: Reply) -> Callable[[], Reply]:
    def wait() -> Reply:
        time.sleep(seconds)
        return reply

    return wait
