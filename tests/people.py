"""More accounts in the tests' Label Studio."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass

import httpx

from tests.conftest import Studio


@dataclass(frozen=True)
class NewPerson:
    """Somebody with an account: user id, e-mail address, password and access token."""

    id: int
    email: str
    password: str
    token: str


def new_person(studio: Studio, name: str, email: str = "") -> NewPerson:
    """Sign somebody up by an invitation of the admin's organisation, as people do.

    The tests share a Label Studio, so the address is one of its own unless a test needs a certain one.
    """
    email = email or f"{name.lower()}-{uuid.uuid4().hex[:6]}@example.com"
    admin = httpx.Client(base_url=studio.url, headers={"Authorization": f"Token {studio.account.token}"}, timeout=30)
    password = secrets.token_urlsafe(12)
    with admin, httpx.Client(base_url=studio.url, timeout=30) as browser:
        link = admin.get("/api/invite").raise_for_status().json()["invite_url"]
        browser.get(link).raise_for_status()
        form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        browser.post(link, data=form, headers={"Referer": f"{studio.url}{link}"})
        found = browser.get("/api/current-user/whoami").raise_for_status().json()
        secure = {"X-CSRFToken": browser.cookies["csrftoken"], "Referer": studio.url}
        browser.patch(f"/api/users/{found['id']}/", json={"first_name": name}, headers=secure).raise_for_status()
        token = browser.get("/api/current-user/token").raise_for_status().json()["token"]
    return NewPerson(int(found["id"]), email, password, token)
