"""A Django project with Channels, in one file; its channel layer is the Redis at REDIS_SOCKET."""

# mypy: disable-error-code="import-untyped,misc"

from __future__ import annotations

import os
from typing import Any

import django
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from plain import say


def _layer() -> dict[str, Any]:
    if address := os.environ.get("REDIS_SOCKET"):
        hosts = [f"unix://{address}"]
        return {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": hosts},
        }
    return {"BACKEND": "channels.layers.InMemoryChannelLayer"}


settings.configure(
    DEBUG=False,
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    CHANNEL_LAYERS={"default": _layer()},
)
django.setup()


class Room(AsyncJsonWebsocketConsumer):
    """What one says is sent to all in the room, whichever process they are connected to."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()
        await self.send_json({"joined": self.room})

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        say(f"{self.room} left with {code}")

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.group_send(self.room, {"type": "room.said", "text": content})

    async def room_said(self, event: dict[str, Any]) -> None:
        await self.send_json(event["text"])


class Echo(WebsocketConsumer):
    """Runs in threads."""

    def connect(self) -> None:
        self.accept(subprotocol="b" if "b" in self.scope["subprotocols"] else None)

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "close":
            self.close(4002, "énough")
        elif text_data == "fail":
            raise RuntimeError("the consumer has a bug")
        else:
            self.send(text_data, bytes_data)

    def disconnect(self, code: int) -> None:
        say(f"echo left with {code}")


class Denied(WebsocketConsumer):
    def connect(self) -> None:
        raise DenyConnection


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a view")


urlpatterns = [path("view", view)]

app = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            URLRouter(
                [
                    path("rooms/<str:room>", Room.as_asgi()),
                    path("echo", Echo.as_asgi()),
                    path("denied", Denied.as_asgi()),
                ]
            )
        ),
    }
)
