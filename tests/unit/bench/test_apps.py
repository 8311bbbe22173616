from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bench import apps
from bench.cases import CASES, MARK, Case

SERVED = [case for case in CASES if case.app != "sleep"]


def call(case: Case) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    half = len(case.request.body) // 2
    events = [
        {"type": "http.request", "body": case.request.body[:half], "more_body": True},
        {"type": "http.request", "body": case.request.body[half:], "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [
        (name.lower().encode(), value.replace(MARK, "1").encode())
        for name, value in case.request.headers
    ]
    asyncio.run(getattr(apps, case.app)({"type": "http", "headers": headers}, receive, send))
    return sent


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case.name)
def test_the_application_gives_the_answer_that_the_case_expects(case: Case) -> None:
    start, *bodies = call(case)

    assert start["status"] == case.status
    assert b"".join(message["body"] for message in bodies) == case.body
    assert not bodies[-1].get("more_body", False)
    lengths = [int(value) for name, value in start["headers"] if name == b"content-length"]
    assert lengths == ([] if case.name == "stream" else [len(case.body)])


def test_the_document_is_about_a_kilobyte() -> None:
    assert 900 <= len(apps.DOCUMENT) <= 1100


@pytest.mark.parametrize("name", ["browser", "unique"])
def test_the_browser_gets_four_headers(name: str) -> None:
    start = call(next(case for case in CASES if case.name == name))[0]
    assert len(start["headers"]) == 4


def test_a_unique_response_has_the_number_of_its_request() -> None:
    start = call(next(case for case in CASES if case.name == "unique"))[0]

    assert len(start["headers"]) == 4
    assert (b"x-request-id", b"5f1c7b3e-9d2a-4c61-1") in start["headers"]


def test_the_stream_is_twenty_chunks_and_an_empty_end() -> None:
    sent = call(next(case for case in CASES if case.name == "stream"))

    assert [len(message["body"]) for message in sent[1:]] == [1024] * 20 + [0]
