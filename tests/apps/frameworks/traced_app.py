"""An ASGI app with a span of its own, an error for Sentry, and OpenTelemetry's middleware around it."""

from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

tracer = trace.get_tracer("shop")


async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    with tracer.start_as_current_span("work of the shop"):
        if scope["path"] == "/boom":
            raise ValueError("boom for Sentry")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"traced"})


app = OpenTelemetryMiddleware(SentryAsgiMiddleware(answer))
