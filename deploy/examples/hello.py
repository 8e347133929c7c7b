"""The smallest handler: one fixed page."""

from preforkd.workers import Response, ServerHttpProtocol


class HttpRequestHandler(ServerHttpProtocol):
    async def handle_request(self, message, payload):
        response = Response(self.writer, 200, http_version=message.version)
        response.add_header("Content-Type", "text/html")
        response.add_header("Content-Length", "18")
        response.send_headers()
        response.write(b"<h1>It Works!</h1>")
        await response.write_eof()
