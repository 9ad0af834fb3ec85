"""The page's routes over real HTTP: who may ask, what comes back, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from page_files import complaints
from rated import compared, no_room, on_a_port, session_of

from bayling.rating import app, votes
from bayling.rating.session import Session

pytestmark = pytest.mark.unit


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return session_of(compared(tmp_path, "red", "blue"), tmp_path)


@pytest.fixture
def http(session: Session) -> Iterator[httpx.Client]:
    with (
        on_a_port(app.application(session)) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


def body(rater: str = "Ana") -> dict[str, object]:
    return {"rater": rater, "ranks": [1, 2], "bad": False, "seconds": 2}


def test_a_vote_is_on_the_disk_before_it_is_confirmed(http: httpx.Client, session: Session) -> None:
    assert http.put("/api/items/0/vote", json=body()).status_code == 200
    [kept] = votes.read([session.path])
    assert (kept.rater, kept.item, kept.seconds) == ("Ana", session.items[0].id, 2)
    assert http.get("/api/items/0?rater=Ana").json()["vote"] == {"ranks": [1, 2], "bad": False}
    sent = http.request("DELETE", "/api/items/0/vote", json={"rater": " Ana "})
    assert sent.status_code == 200
    assert votes.read([session.path]) == []


def test_nothing_that_is_sent_names_a_system(http: httpx.Client, session: Session) -> None:
    paths = ["/", "/rate/app.js", "/api/overview", "/api/progress?rater=Ana", "/api/nowhere"]
    paths += [f"/api/items/{number}?rater=Ana" for number in range(len(session.items) + 1)]
    answers = [http.get(path) for path in paths]
    answers.append(http.put("/api/items/0/vote", json=body()))
    answers.append(http.put("/api/items/0/vote", json={**body(), "ranks": [7]}))
    for answer in answers:
        assert "secret" not in answer.text
        assert "secret" not in json.dumps(dict(answer.headers))


def test_many_raters_at_once_are_kept_apart(http: httpx.Client, session: Session) -> None:
    def judge(rater: str) -> None:
        for number in range(len(session.items)):
            http.put(f"/api/items/{number}/vote", json=body(rater)).raise_for_status()

    raters = [f"rater {number}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(judge, raters))
    kept = votes.read([session.path])
    assert len(kept) == 12 * len(session.items)
    for rater in raters:
        assert all(one["done"] for one in http.get(f"/api/progress?rater={rater}").json()["items"])


def test_a_fixed_rater_is_whoever_asks(session: Session) -> None:
    with (
        on_a_port(app.application(session, rater="Zoë")) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        assert http.get("/api/overview").json()["rater"] == "Zoë"
        http.put("/api/items/0/vote", json=body("Ana")).raise_for_status()
    assert [one.rater for one in session.votes()] == ["Zoë"]


@pytest.mark.parametrize("host", ["rebound.example", "localhost.example:80", "10.0.0.1"])
def test_a_page_whose_name_leads_here_is_not_answered(http: httpx.Client, host: str) -> None:
    for path in ("/", "/api/overview"):
        assert http.get(path, headers={"host": host}).status_code == 400
    assert http.get("/api/overview", headers={"host": "localhost:9"}).status_code == 200
    assert http.get("/api/overview", headers={"host": "[::1]:9"}).status_code == 200


def test_elsewhere_only_who_has_the_token_may_ask(session: Session) -> None:
    with (
        on_a_port(app.application(session, token="open-sesame")) as url,
        httpx.Client(base_url=url, trust_env=False, headers={"host": "lab:1"}) as http,
    ):
        assert http.get("/").status_code == 200, "the page itself knows nothing"
        for given in ("", "Bearer", "Bearer open-sesam", "Bearer open-sesameé", "open-sesame"):
            headers = {"authorization": given.encode()}
            assert http.get("/api/overview", headers=headers).status_code == 401
            sent = http.put("/api/items/0/vote", json=body(), headers=headers)
            assert sent.status_code == 401
        headers = {"authorization": b"Bearer open-sesame"}
        assert http.get("/api/overview", headers=headers).status_code == 200
    assert not session.votes()


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (json.dumps(body()), "text/plain", 415),  # as a form of another site could send
        (json.dumps(body()), "application/json; charset=utf-8", 200),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("{}", "application/json", 400),
        (json.dumps(body("")), "application/json", 400),
        (json.dumps(body("x" * 5000)), "application/json", 413),
    ],
)
def test_what_is_no_vote_is_refused_in_words(
    http: httpx.Client, session: Session, content: str, kind: str, status: int
) -> None:
    sent = http.put("/api/items/0/vote", content=content, headers={"content-type": kind})
    assert sent.status_code == status
    if status != 200:
        assert sent.json()["error"]
        assert not session.votes()


def test_a_body_without_an_end_is_not_waited_for(http: httpx.Client) -> None:
    sent = http.put(
        "/api/items/0/vote", content=iter([b"{}"]), headers={"content-type": "application/json"}
    )
    assert sent.status_code == 411


def test_a_disk_that_is_full_is_told_and_the_vote_not_taken_for_kept(
    http: httpx.Client, session: Session
) -> None:
    http.put("/api/items/0/vote", json=body()).raise_for_status()
    with no_room(session.path):
        sent = http.put("/api/items/1/vote", json=body())
    assert sent.status_code == 507
    assert sent.json()["error"].startswith("the vote could not be saved: ")
    assert len(session.votes()) == 1
    assert http.put("/api/items/1/vote", json=body()).status_code == 200
    assert len(votes.read([session.path])) == 2


def test_a_pause_is_told_and_not_waited_for(session: Session) -> None:
    told, go_on = threading.Event(), threading.Event()

    def paused() -> None:
        told.set()
        go_on.wait(10)

    with on_a_port(app.application(session, when_paused=paused)) as url:
        sent = httpx.post(f"{url}/api/pause", json={}, trust_env=False, timeout=5)
        assert sent.status_code == 200
        assert told.wait(5)
        go_on.set()


def test_the_page_has_no_inline_code_and_names_only_its_own_files() -> None:
    assert complaints(Path(app.__file__).with_name("rate")) == []


def test_the_page_may_run_and_fetch_nothing_from_elsewhere(http: httpx.Client) -> None:
    for path in ("/", "/rate/app.js", "/rate/style.css", "/rate/base.css"):
        policy = http.get(path).headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy)
    answer = http.get("/api/overview")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
