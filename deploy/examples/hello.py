"""The smallest handler: one fixed page."""

from preforkd.workers import Response, ServerHttpProtocol

PAGE = b"<h1>It Works!</h1>"


class HttpRequestHandler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", str(len(PAGE)))
        response.send_headers()
        response.write(PAGE)
        await response.write_eof()
