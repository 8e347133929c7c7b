"""What clients send, and wrk that sends it.

No two heads are alike, as behind any load balancer: each request has an `X-Request-Id` and a query of its own. The head
is put together from three ready strings, so that wrk has as little to do as with one fixed request.
"""

from __future__ import annotations

import re
import subprocess
import tempfile

CONNECTIONS = 64
HEADERS = {
    "Host": "127.0.0.1:8080",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br",
    "Connection": "keep-alive",
    "Cookie": "session=0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
}  # the tenth is X-Request-Id

_SCRIPT = """
local target = "{method} /items?sort=name&page="
local fields = " HTTP/1.1\\r\\n{fields}X-Request-Id: "
local body = "{body}"
local n = 0
function request()
  {count}
  local id = string.format("%08x%08x%08x%08x", n * 40503 % 2 ^ 32, n, n * 48271 % 2 ^ 32, n * 69621 % 2 ^ 32)
  return target .. n .. fields .. id .. "\\r\\n\\r\\n" .. {payload}
end
"""
_JSON = '{"id": 1000000000, "name": "A thing of some use", "price": 19.95, "tags": ["new", "small"], "in_stock": true}'


class LoadError(Exception):
    """A server refused a request, answered it with an error, or broke a connection."""


def script(method: str = "GET", body: int | None = None, *, alike: bool = False, close: bool = False) -> str:
    """Return what wrk is told, in Lua.

    Args:
        method: of the requests.
        body: bytes of a body; 0: a JSON object of some 110 bytes; None: no body.
        alike: send the same head each time.
        close: ask for the connection to be closed behind each response.
    """
    fields = HEADERS | ({"Connection": "close"} if close else {})
    payload = '""'
    if body is not None:
        length = body or len(_JSON)
        fields |= {"Content-Type": "application/json", "Content-Length": str(length)}
        payload = "body"
    text = "".join(f"{name}: {value}\\r\\n" for name, value in fields.items())
    count = "" if alike else "n = n + 1"
    sent = _JSON.replace('"', '\\"') if not body else "x" * body
    return _SCRIPT.format(method=method, fields=text, body=sent, count=count, payload=payload)


def load(port: int, seconds: float, lua: str, *, tls: bool = False) -> int:
    """Run wrk with 64 keep-alive connections; return the number of requests that were answered.

    Args:
        port: of the server.
        seconds: how long.
        lua: what it is told.
        tls: speak TLS; wrk takes any certificate, and resumes no session.

    Raises:
        LoadError: an answer was not 2xx, or a connection failed.
    """
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(lua)
        file.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", file.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if found := re.search(r"Non-2xx.*|Socket errors: .*(connect|read|write|timeout) [1-9].*", output):
        raise LoadError(found[0])
    answered = re.search(r"(\d+) requests in", output)
    if answered is None or not int(answered[1]):
        raise LoadError("no request was answered")
    return int(answered[1])
