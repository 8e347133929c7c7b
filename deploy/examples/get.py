"""GET parameters: `/?name=Ada&name=Grace` is answered with both names."""

from html import escape
from urllib.parse import parse_qsl, urlsplit

from multidict import MultiDict

from preforkd.workers import Response, ServerHttpProtocol


class HttpRequestHandler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        params = MultiDict(parse_qsl(urlsplit(message.path).query))
        names = params.getall("name", ["nobody"])
        body = f"<h1>Hello {escape(' and '.join(names))}!</h1>".encode()

        self.keep_alive(True)  # before the headers go out: they say what the connection will do
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html; charset=utf-8")
        response.add_header("Content-Length", str(len(body)))
        response.send_headers()
        response.write(body)
        await response.write_eof()
