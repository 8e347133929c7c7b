"""POST form data: a form, and the answer to what was sent with it."""

from html import escape
from urllib.parse import parse_qsl

from multidict import MultiDict

from preforkd.workers import HttpProcessingError, Response, ServerHttpProtocol

FORM = '<form method="post"><input name="name"><button>Send</button></form>'


class HttpRequestHandler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        if message.method == "POST":
            page = await self.answer_form(payload)
        elif message.method in ("GET", "HEAD"):
            page = FORM
        else:
            raise HttpProcessingError(405, headers=[("Allow", "GET, HEAD, POST")])
        body = page.encode()

        self.keep_alive(True)  # before the headers go out: they say what the connection will do
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html; charset=utf-8")
        response.add_header("Content-Length", str(len(body)))
        response.send_headers()
        response.write(body)
        await response.write_eof()

    async def answer_form(self, payload):
        data = MultiDict(parse_qsl((await payload.read()).decode()))
        names = data.getall("name", ["nobody"])
        return f"<h1>Hello {escape(' and '.join(names))}!</h1>"
