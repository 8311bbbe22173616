"""`Dispatcher`: which application gets a request, and what it is told about its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from tests.wsgi_apps import answer

from omnicorn.middleware import Dispatcher, HTTPSRedirect, wsgi_to_asgi
from omnicorn.toolkit.lint import lint
from omnicorn.toolkit.testing import (
    HTTPCommunicator,
    HTTPResponse,
    LifespanManager,
    WebSocketCommunicator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from omnicorn.toolkit.compatibility import SingleCallable

    Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


class Named:
    """Answers with its name and its place; accepts WebSockets, and tells them as well."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        place = json.dumps([self.name, scope["root_path"], scope["path"]])
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": place})
            await send({"type": "websocket.close"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": place.encode()})


def mounts(*keys: str) -> dict[str, SingleCallable]:
    return {key: lint(Named(key)) for key in keys}


def get(run: Run, app: Any, target: str, host: str = "testserver", **options: Any) -> HTTPResponse:
    http = HTTPCommunicator(lint(app), "GET", target, headers={"host": host}, **options)
    response: HTTPResponse = run(http.get_response)
    return response


# ------------------------------------------------------------------------------ by path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/api", ["/api", "/api", "/api"]),
        ("/api/", ["/api", "/api", "/api/"]),
        ("/api/users?x=/api/v2", ["/api", "/api", "/api/users"]),
        ("/api/v2", ["/api/v2", "/api/v2", "/api/v2"]),
        ("/api/v2/users", ["/api/v2", "/api/v2", "/api/v2/users"]),
        ("/api/v22", ["/api", "/api", "/api/v22"]),
        ("/caf%C3%A9/x", ["/café", "/café", "/café/x"]),
    ],
)
def test_the_longest_path_that_ends_at_a_segment_wins(
    run: Run, target: str, expected: list[str]
) -> None:
    for keys in (("/api", "/api/v2", "/café"), ("/café", "/api/v2", "/api")):
        assert get(run, Dispatcher(mounts(*keys)), target).json() == expected


@pytest.mark.parametrize("target", ["/", "/ap", "/apis", "/API", "//api", "/x/api"])
def test_what_is_mounted_nowhere_is_not_found(run: Run, target: str) -> None:
    response = get(run, Dispatcher(mounts("/api")), target)

    assert response.status == 404
    assert response.text == "Not Found\n"


def test_a_websocket_that_is_mounted_nowhere_is_denied(run: Run) -> None:
    async def main() -> None:
        app = lint(Dispatcher(mounts("/chat")))
        async with WebSocketCommunicator(app, "/") as ws:
            refused = await ws.connect()
            assert refused.response is not None and refused.response.status == 404
        async with WebSocketCommunicator(app, "/", extensions=()) as ws:
            assert (await ws.connect()).closed is not None
        async with WebSocketCommunicator(app, "/chat/room") as ws:
            assert await ws.connect()
            assert await ws.receive_json() == ["/chat", "/chat", "/chat/room"]

    run(main)


def test_the_default_gets_what_is_left_and_stays_where_it_was(run: Run) -> None:
    app = Dispatcher(mounts("/api"), default=lint(Named("site")))

    assert get(run, app, "/apis").json() == ["site", "", "/apis"]
    assert get(run, app, "/r/x", root_path="/r").json() == ["site", "/r", "/r/x"]


def test_a_slash_is_every_path_even_that_of_the_whole_server(run: Run) -> None:
    app = Dispatcher(mounts("/", "/api"))
    http = HTTPCommunicator(app, "OPTIONS", "/")
    http.scope.update(path="*", raw_path=b"*")

    assert get(run, app, "/apis").json() == ["/", "", "/apis"]
    assert run(http.get_response).json() == ["/", "", "*"]


def test_the_root_path_grows_and_the_path_stays(run: Run) -> None:
    inner = Dispatcher(mounts("/b"))
    app = Dispatcher({"/a": inner})

    for root in ("/r", "/r/"):
        response = get(run, app, "/r/a/b/c", root_path=root)
        assert response.json() == ["/b", "/r/a/b", "/r/a/b/c"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api%2Fusers", "/api/users"),
        ("/api%2fa%2Fb/c", "/api/a/b/c"),
        ("/%61pi/x", "/api/x"),
        ("/api/..%2Fx", "/api/../x"),
        ("/api//", "/api//"),
    ],
)
def test_the_decoded_path_decides_and_the_raw_one_is_handed_on(
    run: Run, target: str, path: str
) -> None:
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["raw_path"])
        await Named("api")(scope, receive, send)

    assert get(run, Dispatcher({"/api": app}), target).json() == ["api", "/api", path]
    assert seen == [target.encode()]


@pytest.mark.parametrize(
    ("target", "root", "place"),
    [
        ("/r/a/b/c/x", "/r", ["/c", "/r/a/b/c", "/r/a/b/c/x"]),
        ("/a/b/c/x", "/r", ["/c", "/r/a/b/c", "/r/a/b/c/x"]),  # put right by the outermost, once
        ("/a/a/b/c", "/a", ["/c", "/a/a/b/c", "/a/a/b/c"]),
        ("/ra/a/b/c", "/r", None),
        ("/a/b/cc", "", None),
        ("/a/bb/c", "", None),
    ],
)
def test_dispatchers_nest_below_any_root_path(
    run: Run, target: str, root: str, place: list[str] | None
) -> None:
    app = Dispatcher({"/a": Dispatcher({"/b": Dispatcher(mounts("/c"))})})

    http = HTTPCommunicator(app, "GET", target)
    http.scope["root_path"] = root
    response = run(http.get_response)

    assert (response.json() if place else response.status) == (place or 404)


def test_a_path_that_lacks_its_root_path_is_put_right(run: Run) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["raw_path"])
        await Named("api")(scope, receive, send)

    http = HTTPCommunicator(Dispatcher({"/api": lint(app)}), "GET", "/api/x")
    http.scope["root_path"] = "/é"

    assert run(http.get_response).json() == ["api", "/é/api", "/é/api/x"]
    assert seen == [b"/%C3%A9/api/x"]

    http = HTTPCommunicator(Dispatcher({"/api": app}), "GET", "/api/x")
    http.scope.update(root_path="/r", raw_path=None)
    assert run(http.get_response).json() == ["api", "/r/api", "/r/api/x"]
    assert seen[1] is None


def test_the_scope_that_was_given_is_not_changed(run: Run) -> None:
    http = HTTPCommunicator(Dispatcher(mounts("/a")), "GET", "/a/b")
    before = {**http.scope}
    run(http.get_response)

    assert http.scope == before


# ------------------------------------------------------------------------------ by host


HOSTS = ("/", "/x", "example.org/x", "example.org", "*.example.org", "*.org/x", "a.b.example.org")


@pytest.mark.parametrize(
    ("host", "target", "key"),
    [
        ("example.org", "/", "example.org"),
        ("EXAMPLE.org:8080", "/x/y", "example.org/x"),
        ("example.org.", "/", "example.org"),
        ("a.example.org", "/x", "*.example.org"),
        ("b.a.example.org", "/", "*.example.org"),
        ("a.b.example.org", "/", "a.b.example.org"),
        ("other.org", "/x", "*.org/x"),
        ("other.org", "/", "/"),
        ("notexample.org", "/", "/"),
        ("org", "/x", "/x"),
        ("example.com", "/xy", "/"),
        ("", "/x", "/x"),
        ("a b", "/x", "/x"),
        ("example.org/", "/", "/"),
    ],
)
def test_the_most_specific_host_wins_before_the_longest_path(
    run: Run, host: str, target: str, key: str
) -> None:
    for keys in (HOSTS, HOSTS[::-1]):
        assert get(run, Dispatcher(mounts(*keys)), target, host).json()[0] == key


def test_a_host_does_not_count_as_a_part_of_the_path(run: Run) -> None:
    app = Dispatcher(mounts("example.org/x"))

    assert get(run, app, "/x/y", "example.org").json() == ["example.org/x", "/x", "/x/y"]
    assert get(run, app, "/y", "example.org").status == 404


def test_an_ipv6_address_is_a_host(run: Run) -> None:
    app = Dispatcher(mounts("[2001:DB8::1]", "[::1]/x"))

    for host in ("[2001:db8::1]", "[2001:DB8::1]:8000", "[2001:db8::1]:"):
        assert get(run, app, "/", host).json()[0] == "[2001:DB8::1]"
    assert get(run, app, "/x", "[::1]:8000").json()[0] == "[::1]/x"
    for host in ("[2001:db8::2]", "2001:db8::1", "[2001:db8::1"):
        assert get(run, app, "/", host).status == 404


def test_two_host_fields_are_no_host(run: Run) -> None:
    http = HTTPCommunicator(Dispatcher(mounts("a", "/")), "GET", "/", headers={"host": "a"})
    http.scope["headers"].append((b"host", b"a"))

    assert run(http.get_response).json()[0] == "/"


# ------------------------------------------------------------------------------ kinds


def test_starlette_finds_its_routes_below_a_mount(run: Run) -> None:
    async def where(request: Request) -> JSONResponse:
        return JSONResponse([str(request.url), str(request.url_for("where", x="1"))])

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.url.path)
        await websocket.close()

    routes = [Route("/where/{x}", where, name="where"), WebSocketRoute("/chat", chat)]
    app = lint(Dispatcher({"/star": Starlette(routes=routes), "/x": Named("x")}))
    url = "http://testserver/star/where/1"

    assert get(run, app, "/star/where/1").json() == [url, url]

    async def main() -> None:
        async with WebSocketCommunicator(app, "/star/chat") as ws:
            assert await ws.connect()
            assert await ws.receive_text() == "/star/chat"

    run(main)


def test_a_dispatcher_stands_below_a_mount_of_starlette(run: Run) -> None:
    app = Starlette(routes=[Mount("/outer", app=Dispatcher(mounts("/inner")))])

    # Not linted: a Starlette changes its scope in place.
    response = run(HTTPCommunicator(app, "GET", "/outer/inner/x").get_response)
    assert response.json() == ["/inner", "/outer/inner", "/outer/inner/x"]


@pytest.mark.parametrize("wrap", [wsgi_to_asgi, lambda app: app], ids=["wrapped", "as it is"])
def test_wsgi_applications_get_script_name_and_path_info(run: Run, wrap: Any) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps([environ["SCRIPT_NAME"], environ["PATH_INFO"]]).encode()]

    dispatcher = Dispatcher({"/old": wrap(app)})

    assert get(run, dispatcher, "/old/x/y").json() == ["/old", "/x/y"]
    assert get(run, dispatcher, "/old").json() == ["/old", ""]
    assert get(run, dispatcher, "/r/old/x", root_path="/r").json() == ["/r/old", "/x"]


@pytest.mark.parametrize("old", [answer([]), wsgi_to_asgi(answer([]))])
def test_a_wsgi_application_gets_no_websocket(run: Run, old: Any) -> None:
    async def main() -> None:
        app = lint(Dispatcher({"/old": old}))
        async with WebSocketCommunicator(app, "/old") as ws:
            refused = await ws.connect()
            assert refused.response is not None and refused.response.status == 404

    run(main)


def test_an_application_of_asgi_2_is_called_as_one(run: Run) -> None:
    class Two:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await Named("two")(self.scope, receive, send)

    assert get(run, Dispatcher({"/two": Two}), "/two/x").json() == ["two", "/two", "/two/x"]


def test_an_application_without_a_signature_is_taken_for_what_it_may_be() -> None:
    class Opaque:
        __signature__ = "none"  # as of some written in C

        def __call__(self, scope: Any) -> Any:
            raise NotImplementedError

    Dispatcher({"/": Opaque()})


def test_other_middleware_stands_inside_and_outside(run: Run) -> None:
    app = HTTPSRedirect(Dispatcher({"/a": HTTPSRedirect(Named("a"))}))

    assert get(run, app, "/a/b", scheme="https").json() == ["a", "/a", "/a/b"]
    assert get(run, app, "/a/b").header("location") == "https://testserver/a/b"


# ------------------------------------------------------------------------------ state


class Stateful(Named):
    """Leaves its name in its state, and answers with the state of the request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["name"] = self.name
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(scope["state"]).encode()})


def test_each_application_sees_the_state_that_it_has_filled(run: Run) -> None:
    async def main() -> None:
        app = lint(
            Dispatcher(
                {"/a": lint(Stateful("a")), "/b": Dispatcher({"/": lint(Stateful("b"))})},
                default=wsgi_to_asgi(answer([b"{}"])),
            )
        )
        async with LifespanManager(app) as lifespan:
            for path, state in (("/a", {"name": "a"}), ("/b", {"name": "b"}), ("/c", {})):
                http = HTTPCommunicator(app, "GET", path, state=lifespan.state)
                assert (await http.get_response()).json() == state
                assert http.scope["state"] == lifespan.state

    run(main)


def test_a_dispatcher_may_live_in_two_servers_at_once(run: Run) -> None:
    class Counting(Stateful):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                self.name += "'"
            await super().__call__(scope, receive, send)

    async def main() -> None:
        app = Dispatcher({"/": Counting("n")})

        async def name(lifespan: LifespanManager) -> Any:
            http = HTTPCommunicator(app, "GET", "/", state=lifespan.state)
            return (await http.get_response()).json()["name"]

        async with LifespanManager(app) as one:
            async with LifespanManager(app) as two:
                assert await name(one) == "n'"
                assert await name(two) == "n''"
            assert await name(one) == "n'"

    run(main)


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "key",
    ["*", "*.", "a b", "example.org:80", "a*.org/x", "*.*.org", "user@a", "é.org", "http://a/b"],
)
def test_a_key_whose_host_is_none_is_an_error_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        Dispatcher(mounts(key))


@pytest.mark.parametrize("key", ["/a//b", "//", "/a?b", "/a#b", "/caf%C3%A9", "a//"])
def test_a_key_whose_path_is_none_is_an_error_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="write it decoded"):
        Dispatcher(mounts(key))


def test_other_mistakes_are_errors_at_once() -> None:
    with pytest.raises(ValueError, match="'/a/' is mounted twice"):
        Dispatcher(mounts("/a", "/a/"))
    with pytest.raises(ValueError, match=r"'A\.org' is mounted twice"):
        Dispatcher(mounts("a.org", "A.org"))
    with pytest.raises(ValueError, match="nothing is mounted"):
        Dispatcher({})
    with pytest.raises(ValueError, match="an empty key"):
        Dispatcher(mounts(""))
    with pytest.raises(TypeError, match="'main:app', at /a, is no application"):
        Dispatcher({"/a": "main:app"})  # type: ignore[dict-item]


def test_a_scope_that_nobody_knows_raises(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="'mail' has no path"):
            await Dispatcher(mounts("/"))({"type": "mail"}, None, None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="'mail' has no application here"):
            await Dispatcher(mounts("/a"))(
                {"type": "mail", "path": "/", "headers": []},
                None,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
            )

    run(main)


PATHS = st.lists(st.sampled_from(["a", "b", "ab", "", "..", "é"]), max_size=4).map("/".join)


@given(
    keys=st.sets(st.sampled_from(["/", "/a", "/a/b", "/ab", "*.x", "a.x/a", "x"]), min_size=1),
    path=PATHS,
    host=st.sampled_from([b"x", b"a.x", b"b.a.x", b"X:1", b"a.x.", b""]) | st.binary(max_size=20),
    root=st.sampled_from(["", "/r"]),
)
def test_whatever_is_asked_for_one_application_or_none_answers(
    keys: set[str], path: str, host: bytes, root: str
) -> None:
    dispatcher = Dispatcher(mounts(*keys))
    scope = {"headers": [(b"host", host)]}
    prefix, mounted = dispatcher._find(scope, f"/{path}")

    assert f"/{path}/".startswith(f"{prefix}/")
    if mounted is None:
        assert "/" not in keys
    else:
        assert mounted.name in keys
        assert mounted.name.endswith(prefix)
        # Nothing that is mounted at a longer path of any host was passed over.
        if not any(dispatcher._table.get(one) for one in ("*.x", "a.x", "x")):
            below = [key for key in keys if f"/{path}/".startswith(f"{key.rstrip('/')}/")]
            assert mounted.name == max(below, key=len)
