"""Tracing by OpenTelemetry and errors by Sentry, set up in each worker.

pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http opentelemetry-instrumentation-asgi sentry-sdk
OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 SENTRY_DSN=https://... \
    preforkd shop.asgi:app --hooks deploy/examples/observability.py

Both have threads that send what they have collected, and threads do not live through a fork: so they are begun in the
hook, which runs after it. The app wraps itself: `app = OpenTelemetryMiddleware(app)`.
"""

import sentry_sdk
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

SECONDS = 2  # for what has still to be sent; within --shutdown-timeout


def boot(slot, generation, reason):
    instance = f"{slot}.{generation}"
    provider = TracerProvider(resource=Resource.create({"service.instance.id": instance}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=SECONDS)))
    trace.set_tracer_provider(provider)
    sentry_sdk.init(release="shop@1", server_name=instance)  # it reads SENTRY_DSN


def exit(slot, generation, reason):  # noqa: A001 - the name of the hook
    trace.get_tracer_provider().shutdown()
    sentry_sdk.flush(SECONDS)
