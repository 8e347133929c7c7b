"""A Django app, WSGI, with a path for each behaviour that the tests of frameworks need."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="only for tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello")


def form(request: HttpRequest) -> HttpResponse:
    files = {name: len(file.read()) for name, file in request.FILES.items()}
    return JsonResponse({"fields": request.POST.dict(), "files": files})


def echo(request: HttpRequest) -> HttpResponse:
    return JsonResponse(json.loads(request.body), safe=False)


def upload(request: HttpRequest) -> HttpResponse:
    size = 0
    while data := request.read(65536):
        size += len(data)
    return JsonResponse({"size": size})


def stream(request: HttpRequest, count: int) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for number in range(count):
            yield f"{number} {request.path}\n"
            time.sleep(0.01)

    return StreamingHttpResponse(parts(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"), content_type="text/x-python")


def database(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 6 * 7")
        return HttpResponse(str(cursor.fetchone()[0]))


async def coroutine(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("awaited")


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a bug in the app")


urlpatterns = [
    path("", hello),
    path("form", form),
    path("json", echo),
    path("upload", upload),
    path("stream/<int:count>", stream),
    path("file", file),
    path("database", database),
    path("coroutine", coroutine),
    path("fail", fail),
]
app = get_wsgi_application()
