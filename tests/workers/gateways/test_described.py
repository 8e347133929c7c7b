"""The compiled form of scopes and environs says what the pure one says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preforkd.workers.gateways.described import compiled_form
from preforkd.workers.http import compiled
from preforkd.workers.http.message import Forwarded, HttpVersion, HttpVersion10, HttpVersion11, RequestMessage
from preforkd.workers.http.names import MEANT, PLAIN
from tests.workers.gateways.descriptions import CLIENT, Both

pytestmark = pytest.mark.skipif(compiled.MISSING != "", reason=f"nothing was compiled here: {compiled.MISSING}")


def message_of(
    target: str = "/", *fields: tuple[bytes, bytes], version: HttpVersion = HttpVersion11, request_id: str = ""
) -> RequestMessage:
    message = RequestMessage("GET", target, version, [*fields], False)
    message.request_id = request_id
    return message


def is_usual(message: RequestMessage, root_path: str = "") -> tuple[bool, bool]:
    """Whether the compiled form takes it, for ASGI and for WSGI."""
    both = Both(root_path)
    template, environs = both.templates[1], both.environs[1]
    scope = environ = None
    if template._usual is not None:
        scope = template._usual(template._http, {}, {}, message, CLIENT)
    if environs._usual is not None:
        environ = environs._usual(environs._base, {}, message, CLIENT)
    return scope is not None, environ is not None


TARGETS = st.one_of(
    st.sampled_from(
        ["/", "/?", "/a?b?c", "/a%20b?c", "/a?b%20c", "//", "*", "http://a", "http://a/b?c", "/a/b/../c?x=1&y"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=9).map("/".__add__),
)
NAMES = st.sampled_from([*PLAIN, *MEANT, b"x-own", b"x_own", b"proxy", b"proxy-x", b"cookie", b"content_type", b"a.b"])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=5)), max_size=9)


@given(
    TARGETS, FIELDS, st.sampled_from([HttpVersion10, HttpVersion11]), st.sampled_from(["", "7f1c"]),
    st.sampled_from([None, CLIENT, ("::1", 0), ("a", 65535), ("a", 9)]), st.sampled_from(["", "/root"]),
)  # fmt: skip
@example(
    "/", [(b"cookie", b"a"), (b"cookie", b"b"), (b"accept", b"a"), (b"accept", b"\xff")], HttpVersion11, "", None, ""
)
@example("/", [(b"x-own", b""), (b"x-own", b"a"), (b"proxy", b"a"), (b"x_own", b"x")], HttpVersion11, "a", CLIENT, "")
def test_both_forms_say_the_same(
    target: str,
    fields: list[tuple[bytes, bytes]],
    version: HttpVersion,
    request_id: str,
    client: tuple[str, int] | None,
    root_path: str,
) -> None:
    both = Both(root_path, {"kept": 1})
    assert both.agree(message_of(target, *fields, version=version, request_id=request_id), client)


def test_usual_requests_are_taken_and_the_others_left() -> None:
    forwarded = message_of()
    forwarded.forwarded = Forwarded(CLIENT)
    assert is_usual(message_of("/a?b%20c", (b"host", b"a"), request_id="x")) == (True, True)
    for message in (forwarded, message_of("/%20"), message_of("*"), message_of(version=HttpVersion10)):
        assert is_usual(message) == (False, False)
        assert Both().agree(message)
    assert is_usual(message_of(), root_path="/a") == (False, False)


@pytest.mark.parametrize("form", [0, 1])
def test_a_request_has_what_it_is_told_for_itself(form: int) -> None:
    kept = {"kept": 1}
    both = Both(state=kept)
    message = message_of("/", (b"host", b"a"), request_id="x")
    for _ in range(2):
        scope = both.scopes(message)[form]
        assert scope["state"] == {"kept": 1, "request_id": "x"}
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
        assert scope["headers"] == [(b"host", b"a")]
        assert "http.response.pathsend" in scope["extensions"]
        for value in (scope["state"], scope["asgi"], scope["headers"], scope["extensions"], scope):
            value.clear()
        environ = both.both_environs(message)[form]
        assert (environ["HTTP_HOST"], environ["REMOTE_PORT"]) == ("a", "40000")
        environ.clear()
    assert kept == {"kept": 1}
    assert message.fields == [(b"host", b"a")]


def test_wrong_arguments_are_type_errors() -> None:
    before = compiled.form()
    compiled.choose("compiled")
    functions: Any = compiled_form()
    compiled.choose(before)
    message = message_of()
    arguments: tuple[Any, ...]
    for arguments in (
        (), ({}, {}, {}, message, CLIENT), ({"asgi": {}}, {}, {}, None, CLIENT), ({"asgi": {}}, {}, [], message, CLIENT)
    ):  # fmt: skip
        with pytest.raises(TypeError):
            functions.scope(*arguments)
    for arguments in (
        (),
        ({}, {}, None, CLIENT),
        ({}, {}, message, "a"),
        ({}, {}, message, ("a", "b")),
        ([], {}, message, CLIENT),
    ):
        with pytest.raises(TypeError):
            functions.environ(*arguments)
    for fields in ([1], [(b"a",)], [("a", b"b")], [(b"a", "b")], [[b"a", b"b"]]):
        message.fields = fields  # type: ignore[assignment]
        with pytest.raises(TypeError):
            functions.environ({}, {}, message, CLIENT)
    del message.fields
    with pytest.raises(TypeError):
        functions.environ({}, {}, message, CLIENT)
