"""Who may see and change what: people log in with their Label Studio account, programs send an access token of one."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from fastapi import Cookie, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, SecretStr

from a2lc_backend.label_studio import LabelStudioError, LabelStudioUnauthorizedError
from a2lc_backend.label_studio.accounts import who_has_password, who_has_token
from a2lc_backend.service import Service
from a2lc_backend.store import Person, Session
from a2lc_backend.web.files import page

Role = Literal["annotator", "admin"]

COOKIE = "a2lc_session"
PERSON = "a2lc-person"
"""Header in which a page names the id of whoever it speaks for; a program may leave it out."""

_SESSION_SECONDS = 7 * 24 * 3600
_TOKEN_SECONDS = 300.0
"""How long Label Studio's word on an access token holds."""

_FAILURES, _FAILURE_SECONDS = 5, 60.0
"""So many wrong passwords for one address in so many seconds, and no more are tried."""

_OPEN = re.compile(
    r"/(health|setup|predict|versions|train|webhook|metrics|login|api/login|api/logout|review/pictures/.*)"
)
"""What Label Studio, Prometheus and people who are not logged in yet call."""

_ANNOTATORS = re.compile(
    r"/(review(/.*)?|api/me|api/review/.*|api/projects/\d+/review(/.*)?|api/projects/\d+/rounds/\d+/masks/.*)"
)


@dataclass(frozen=True)
class Member:
    """Who asks: an account of Label Studio, and what it may do here.

    Attributes:
        id: user id in Label Studio; 0 for the program itself, or where nobody has to log in.
        name: as people call them.
        email: of the account.
        role: an `annotator` answers questions; an `admin` also begins rounds and changes what holds.
    """

    id: int
    name: str
    email: str
    role: Role


class Login(BaseModel):
    """An account of Label Studio: its e-mail address and password, or one of its access tokens."""

    email: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = Field(SecretStr(""), description="personal access token of Label Studio, instead of the others")


class Gate:
    """Asks who somebody is before any path of the API is answered.

    Args:
        service: knows the sessions and where Label Studio is.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._known: dict[str, tuple[float, Member]] = {}
        self._failures: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> None:
        """The dependency of every path: leaves the `Member` in `request.state.person`, or refuses.

        Raises:
            HTTPException: 401 for somebody unknown (303 to the login for a page), 403 for what one may not do.
        """
        path = request.url.path
        request.state.person = member = self._member(request)
        _see_person(request, member)
        if _OPEN.fullmatch(path):
            return
        is_page = path == "/" or path.startswith("/review/")
        if member is None:
            if is_page:
                asked = quote(path.lstrip("/") + (f"?{request.url.query}" if request.url.query else ""))
                raise HTTPException(303, "log in first", {"Location": f"{_up(path)}login?next={asked}"})
            raise HTTPException(401, "log in first, or send an access token of Label Studio: Authorization: Token …")
        if member.role != "admin" and not _ANNOTATORS.fullmatch(path):
            if is_page:
                raise HTTPException(303, "annotators review", {"Location": "review/"})
            raise HTTPException(
                403, f"{member.email} may answer questions only; A2LC_ADMINS names those who may do this"
            )

    def enter(self, login: Login) -> tuple[str, Member]:
        """The secret of a new session, and whose it is.

        Raises:
            HTTPException: 401 for what is wrong, 429 after too many wrong passwords, 502 without Label Studio.
        """
        token, password = login.token.get_secret_value().strip(), login.password.get_secret_value()
        email = login.email.strip().lower()
        if not token and not (email and password):
            raise HTTPException(422, "give an e-mail address and a password, or an access token")
        self._see_failures(email)
        url = self._settings.label_studio_url.rstrip("/")
        try:
            person = who_has_token(url, token) if token else who_has_password(url, email, password)
            is_owner = self._is_owner(person)
        except LabelStudioUnauthorizedError as error:
            self._failures.setdefault(email, []).append(time.monotonic())
            why = "Label Studio does not know this access token; make one under Account & Settings" if token else error
            raise HTTPException(401, str(why)) from error
        except LabelStudioError as error:
            raise HTTPException(502, str(error)) from error
        secret = secrets.token_urlsafe(32)
        self._service.ledger.save_people([person])
        self._service.ledger.open_session(Session(_digest(secret), person.id, is_owner, time.time() + _SESSION_SECONDS))
        return secret, self._as_member(person, is_owner)

    def leave(self, secret: str) -> None:
        """End a session."""
        self._service.ledger.close_session(_digest(secret))

    def _see_failures(self, email: str) -> None:
        now = time.monotonic()
        for address, times in list(self._failures.items()):
            self._failures[address] = [moment for moment in times if now - moment < _FAILURE_SECONDS]
            if not self._failures[address]:
                del self._failures[address]
        if len(self._failures.get(email, ())) >= _FAILURES:
            raise HTTPException(429, "too many wrong passwords for this address; try again in a minute")

    def _member(self, request: Request) -> Member | None:
        if not self._settings.login:
            return Member(0, "nobody in particular", "", "admin")
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() in {"token", "bearer"} and token.strip():
            return self._by_token(token.strip())
        secret = request.cookies.get(COOKIE, "")
        if not secret:
            return None
        if request.method not in {"GET", "HEAD"}:
            _see_origin(request, self._settings.browser_url)
        session = self._service.ledger.session(_digest(secret))
        person = self._service.ledger.people().get(session.person) if session else None
        return self._as_member(person, session.is_owner) if session and person else None

    def _by_token(self, token: str) -> Member:
        own = self._settings.label_studio_api_key.get_secret_value()
        if own and hmac.compare_digest(token.encode(), own.encode()):
            # The command line beside the backend has its token, and works while Label Studio is away.
            return Member(0, "the program's own token", "", "admin")
        key, now = _digest(token), time.monotonic()
        with self._lock:
            asked, member = self._known.get(key, (0.0, None))
        if member is None or now - asked > _TOKEN_SECONDS:
            try:
                person = who_has_token(self._settings.label_studio_url.rstrip("/"), token)
                member = self._as_member(person, self._is_owner(person))
            except LabelStudioUnauthorizedError as error:
                raise HTTPException(401, "Label Studio does not know this access token") from error
            except LabelStudioError as error:
                raise HTTPException(502, str(error)) from error
            self._service.ledger.save_people([person])
            with self._lock:
                self._known = {known: item for known, item in self._known.items() if now - item[0] < _TOKEN_SECONDS}
                self._known[key] = (now, member)
        return member

    def _as_member(self, person: Person, is_owner: bool) -> Member:
        is_admin = is_owner or person.email.lower() in self._settings.admin_emails
        return Member(person.id, person.name, person.email, "admin" if is_admin else "annotator")

    def _is_owner(self, person: Person) -> bool:
        """Whether somebody owns the program's own token."""
        key = self._settings.label_studio_api_key.get_secret_value()
        try:
            return bool(key) and who_has_token(self._settings.label_studio_url.rstrip("/"), key).id == person.id
        except LabelStudioUnauthorizedError:
            return False


def add_login(app: FastAPI, gate: Gate) -> None:
    """Serve the page that people log in on, and what it asks."""

    @app.get("/login", include_in_schema=False)
    def login_page() -> FileResponse:
        return page("login.html")

    @app.post("/api/login", tags=["People"])
    def login(body: Login, request: Request, response: Response) -> dict[str, Any]:
        """Log in with an account of Label Studio; the session is a cookie, and lasts a week."""
        _see_origin(request, gate._settings.browser_url)
        secret, member = gate.enter(body)
        response.set_cookie(
            COOKIE, secret, max_age=_SESSION_SECONDS, httponly=True, samesite="lax", path="/",
            secure=gate._settings.browser_url.startswith("https:"),
        )  # fmt: skip
        return asdict(member)

    @app.post("/api/logout", tags=["People"])
    def logout(response: Response, a2lc_session: Annotated[str, Cookie()] = "") -> dict[str, bool]:
        """End the session."""
        if a2lc_session:
            gate.leave(a2lc_session)
        response.delete_cookie(COOKIE, path="/")
        return {"left": True}

    @app.get("/api/me", tags=["People"])
    def me(request: Request) -> dict[str, Any]:
        """Who is logged in, and what they may do."""
        return asdict(request.state.person)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _see_origin(request: Request, own_url: str) -> None:
    """Refuse what a page of somebody else makes a browser send."""
    origin = request.headers.get("origin", "")
    hosts = {request.headers.get("host", ""), urlsplit(own_url).netloc}
    if origin and urlsplit(origin).netloc not in hosts:
        raise HTTPException(403, f"this came from {origin}; set A2LC_PUBLIC_URL if that is where people open this page")


def _see_person(request: Request, member: Member | None) -> None:
    """Refuse what a page says for somebody else than who has logged in in its browser meanwhile."""
    named = request.headers.get(PERSON, "")
    if member is not None and named and named != str(member.id):
        raise HTTPException(
            409, f"{member.name} is logged in in this browser now; log in as before, or load this page again"
        )


def _up(path: str) -> str:
    """From a page to the root, so that it also works below a prefix that a proxy takes away."""
    return "../" * (path.count("/") - 1)
