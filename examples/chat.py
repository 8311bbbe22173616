"""A chat in one file: `omnicorn --app-dir examples chat:app`, then open two tabs on it.

Plain ASGI, nothing to install. What it shows beside the messages themselves:

1. Whoever may not come in is told why: a page sees the code and the reason of a close, but
   nothing of a denied handshake, so only other people's pages get the latter.
2. Nobody waits for the slowest guest. ``send`` waits while its peer does not read, so every
   guest has a task that sends and a short queue for it; whose queue is full has to leave.
3. A page that loses its server, also one that restarts (1012), tries again by itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from omnicorn.asgi import (
        ASGIReceiveCallable,
        ASGISendCallable,
        HTTPScope,
        Scope,
        WebSocketScope,
    )

NAME_LENGTH: Final = 20
TEXT_LENGTH: Final = 1000
REMEMBERED: Final = 50
"""Messages that a new guest gets to see."""
QUEUE: Final = 200
"""Messages that may wait for a guest."""

UNSUPPORTED, TRY_AGAIN, NAME_REFUSED = 1003, 1013, 4000


class Guest:
    """Somebody in the room."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.unsent: asyncio.Queue[str] = asyncio.Queue(QUEUE)
        self.sender: asyncio.Task[None] | None = None
        self.too_slow = False

    def tell(self, message: str) -> None:
        """Hand a message to this guest's task."""
        try:
            self.unsent.put_nowait(message)
        except asyncio.QueueFull:
            self.too_slow = True
            if self.sender is not None:
                self.sender.cancel()


class Room:
    """Who is here, and what was said."""

    def __init__(self) -> None:
        self._guests: dict[str, Guest] = {}
        self._said: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def refusal(self, name: str) -> str:
        """Why somebody of that name cannot come in; nothing if they can."""
        if not 0 < len(name) <= NAME_LENGTH:
            return f"Please choose a name of up to {NAME_LENGTH} characters."
        if name in self._guests:
            return "Somebody of that name is here already."
        return ""

    def enter(self, guest: Guest) -> None:
        self._guests[guest.name] = guest
        guest.tell(json.dumps({"kind": "welcome", "said": list(self._said)}))
        self._tell_all({"kind": "came", "who": guest.name, "here": sorted(self._guests)})

    def leave(self, guest: Guest) -> None:
        del self._guests[guest.name]
        self._tell_all({"kind": "left", "who": guest.name, "here": sorted(self._guests)})

    def say(self, guest: Guest, text: str) -> None:
        said = {"kind": "said", "who": guest.name, "text": text, "at": time.time()}
        self._said.append(said)
        self._tell_all(said)

    def _tell_all(self, message: dict[str, Any]) -> None:
        encoded = json.dumps(message)
        for guest in self._guests.values():
            guest.tell(encoded)


room = Room()


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "http":
        await show_page(scope, send)
    elif scope["type"] == "websocket":
        await chat(scope, receive, send)
    else:
        raise NotImplementedError(f"this application does not speak {scope['type']}")


async def show_page(scope: HTTPScope, send: ASGISendCallable) -> None:
    found = scope["path"] == "/"
    body = PAGE.encode() if found else b"There is only one page here: /"
    kind = b"text/html; charset=utf-8" if found else b"text/plain"
    await send(
        {
            "type": "http.response.start",
            "status": 200 if found else 404,
            "headers": [(b"content-type", kind), (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def chat(scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await receive()  # websocket.connect
    if not is_of_our_page(scope):
        await send({"type": "websocket.close"})  # before the accept: a 403
        return
    await send({"type": "websocket.accept"})
    query = parse_qs((scope.get("query_string") or b"").decode("latin-1"))
    name = " ".join(query.get("name", [""])[0].split())
    if reason := room.refusal(name):
        await send({"type": "websocket.close", "code": NAME_REFUSED, "reason": reason})
        return
    guest = Guest(name)
    sender = guest.sender = asyncio.create_task(pass_on(guest, send))
    room.enter(guest)
    try:
        await listen(guest, receive, send)
    finally:
        room.leave(guest)
        sender.cancel()
        await asyncio.wait((sender,))


def is_of_our_page(scope: WebSocketScope) -> bool:
    """Whether no page of somebody else asks; browsers tell, other clients need not."""
    headers = dict(scope["headers"])
    origin = headers.get(b"origin")
    return origin is None or origin.partition(b"://")[2] == headers.get(b"host")


async def listen(guest: Guest, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Pass on what a guest says until they leave."""
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if text is None:
            await send({"type": "websocket.close", "code": UNSUPPORTED, "reason": "Text only."})
        elif text := text.strip()[:TEXT_LENGTH]:
            room.say(guest, text)


async def pass_on(guest: Guest, send: ASGISendCallable) -> None:
    """Send a guest what the others say."""
    try:
        while True:
            await send({"type": "websocket.send", "text": await guest.unsent.get()})
    except OSError:
        pass  # they have left, which `listen` is told as well
    except asyncio.CancelledError:
        if guest.too_slow:
            reason = "Your connection is too slow."
            await send({"type": "websocket.close", "code": TRY_AGAIN, "reason": reason})
        raise


PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>omnicorn chat</title>
<link rel="icon" href="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' \
viewBox='0 0 16 16'><text y='13' font-size='13'>🦄</text></svg>">
<style>
  :root {
    color-scheme: light dark;
    --page: light-dark(#f4f1fa, #16131f);
    --card: light-dark(#ffffff, #211c2e);
    --ink: light-dark(#2a2438, #ebe6f5);
    --faint: light-dark(#857d99, #8d84a3);
    --line: light-dark(#e5dff2, #352e48);
    --mine: light-dark(#6d4aff, #7c5cff);
  }
  * { box-sizing: border-box; margin: 0 }
  body {
    height: 100dvh; padding: 2vmin; display: grid; place-items: center;
    font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
    background: radial-gradient(circle at 20% 0, #a78bfa55, transparent 45%),
      radial-gradient(circle at 90% 100%, #f472b644, transparent 40%), var(--page);
  }
  main {
    width: min(46rem, 100%); height: min(48rem, 100%); display: flex; flex-direction: column;
    background: var(--card); border: 1px solid var(--line); border-radius: 1.2rem;
    box-shadow: 0 1.5rem 4rem #1b103833; overflow: hidden;
  }
  header, form { display: flex; gap: .7rem; align-items: center; padding: 1rem 1.25rem }
  header { border-bottom: 1px solid var(--line) }
  h1 { font-size: 1.1rem; flex: 1 }
  #here { color: var(--faint); font-size: .85rem; text-align: right }
  #state { width: .7rem; height: .7rem; border-radius: 50%; background: #f59e0b }
  #state.open { background: #22c55e }
  #log { flex: 1; overflow-y: auto; padding: 1.25rem; display: flex; flex-direction: column }
  #log > :first-child { margin-top: auto }
  .note { align-self: center; margin: .5rem 0; color: var(--faint); font-size: .85rem }
  .said { max-width: 80%; align-self: flex-start; margin: .25rem 0 }
  .said b { font-size: .8rem; color: hsl(var(--hue) 60% 55%) }
  .said time { font-size: .75rem; color: var(--faint); margin-left: .5rem }
  .said p {
    padding: .45rem .85rem; border-radius: .3rem 1rem 1rem; background: var(--page);
    overflow-wrap: anywhere; white-space: pre-wrap;
  }
  .mine { align-self: flex-end; text-align: right }
  .mine p {
    text-align: left; color: #fff; background: var(--mine); border-radius: 1rem .3rem 1rem 1rem;
  }
  form { border-top: 1px solid var(--line) }
  input {
    flex: 1; min-width: 0; padding: .65rem 1rem; border-radius: 2rem; font: inherit;
    color: inherit; background: var(--page); border: 1px solid var(--line);
  }
  button {
    padding: .65rem 1.3rem; border: 0; border-radius: 2rem; font: inherit; font-weight: 600;
    color: #fff; background: var(--mine); cursor: pointer;
  }
  :focus-visible { outline: 2px solid var(--mine); outline-offset: 2px }
</style>
<main>
  <header><span id="state"></span><h1>omnicorn chat</h1><span id="here"></span></header>
  <div id="log" role="log" aria-live="polite"></div>
  <form id="form">
    <input id="input" autocomplete="off" maxlength="1000" autofocus>
    <button id="button"></button>
  </form>
</main>
<script type="module">
  const get = id => document.getElementById(id);
  const [state, here, log, form, input, button] =
    ["state", "here", "log", "form", "input", "button"].map(get);
  let name = "", socket = null, delay = 0;

  function add(element, kind) {
    const low = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    element.className = kind;
    log.append(element);
    if (low) log.scrollTop = log.scrollHeight;
  }
  function make(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text;  // never as HTML: it is what others wrote
    return element;
  }
  const note = text => add(make("div", text), "note");

  const on = {
    welcome({said}) { log.replaceChildren(); said.forEach(on.said) },
    came({who, here}) { on.here(here); note(who === name ? `Hello, ${who}!` : `${who} came`) },
    left({who, here}) { on.here(here); note(`${who} left`) },
    here(names) { here.textContent = names.join(", ") },
    said({who, text, at}) {
      const box = document.createElement("div"), time = make("time", "");
      time.textContent = new Date(at * 1000).toLocaleTimeString([], {timeStyle: "short"});
      box.append(make("b", who), time, make("p", text));
      const hue = [...who].reduce((sum, letter) => sum * 31 + letter.codePointAt(0), 7) % 360;
      box.style.setProperty("--hue", hue);
      add(box, who === name ? "said mine" : "said");
    },
  };

  function ask(chatting) {
    input.value = "";
    input.maxLength = chatting ? 1000 : 20;
    input.placeholder = chatting ? "Say something" : "Your name";
    button.textContent = chatting ? "Send" : "Enter";
    input.focus();
  }
  function connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}/?name=${encodeURIComponent(name)}`);
    socket.onmessage = ({data}) => {
      const message = JSON.parse(data);
      if (message.kind === "welcome") { state.className = "open"; delay = 0; ask(true) }
      on[message.kind](message);
    };
    socket.onclose = ({code, reason}) => {
      state.className = here.textContent = "";
      socket = null;
      if (code === 4000) { name = ""; ask(false); note(reason); return }
      if (!delay) note(reason || "The connection is lost; trying again.");
      delay = Math.min(delay * 2 || 500, 10000);
      setTimeout(connect, delay);
    };
  }
  form.onsubmit = event => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    if (!name) { name = text; connect() }
    else if (socket?.readyState === WebSocket.OPEN) { socket.send(text); input.value = "" }
  };
  ask(false);
</script>
</html>
"""
