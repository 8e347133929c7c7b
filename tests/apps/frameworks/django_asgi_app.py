"""The routes of tests/frameworks in Django, as an ASGI application in one file."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import AsyncIterator

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for tests only",
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)
django.setup()
events: list[str] = []


def hello(request: HttpRequest) -> HttpResponse:  # a plain function: Django runs it in a thread
    return HttpResponse(f"hello {request.GET['name']}", content_type="text/plain")


async def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.POST.dict())


async def json(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"got": json_module.loads(request.body)})


def upload(request: HttpRequest) -> HttpResponse:
    size = 0
    while chunk := request.read(65536):
        size += len(chunk)
    return HttpResponse(str(size))


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"%d\n" % number
            await asyncio.sleep(0.005)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def ticks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("left")

    return StreamingHttpResponse(ticks(), content_type="text/plain")


async def quiet_events(request: HttpRequest) -> StreamingHttpResponse:
    async def quiet() -> AsyncIterator[bytes]:
        try:
            yield b"data: first\n\n"
            await asyncio.sleep(3600)
        finally:
            events.append("left the events")

    return StreamingHttpResponse(quiet(), content_type="text/event-stream")


async def error(request: HttpRequest) -> HttpResponse:
    raise LookupError("a bug in the app")


async def waits(request: HttpRequest) -> HttpResponse:
    events.append("waiting")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:  # how Django tells a view that its client is gone
        events.append("left while the app worked")
        raise
    return HttpResponse("nobody reads this")


async def told(request: HttpRequest) -> HttpResponse:
    return JsonResponse(events, safe=False)


urlpatterns = [
    path("hello", hello),
    path("form", form),
    path("json", json),
    path("upload", upload),
    path("stream", stream),
    path("endless", endless),
    path("events", quiet_events),
    path("error", error),
    path("waits", waits),
    path("told", told),
]
app = get_asgi_application()
