"""What every request has to pass before the application sees it, and what every answer says.

The studio listens on loopback alone, but any page that is open in the browser, and any program on
the machine, may send to it. Hence:

    Host             a name of loopback; an attacker's name may be rebound to 127.0.0.1
    Origin           the page's own, of requests that change something; no other site may post
    Sec-Fetch-Site   same-origin, or none (typed by the user), if the browser says it
    token            of the address that was printed; then in a cookie that no script can read
    body             at most as long as the largest mask

    answer           a policy that runs only the page's own scripts and reaches no other host
"""

import hmac
import re
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import TooLarge

HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")
SAFE_METHODS = {"GET", "HEAD"}
ANSWER = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
ADMITTED = "studio.admitted"  # in the scope of a request with the token


class Guard:
    """ASGI middleware that refuses what does not come from the studio's own page."""

    def __init__(self, app: ASGIApp, token: str, max_body_bytes: int) -> None:
        self.app, self.token, self.max_body_bytes = app, token, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ANSWER.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        if scope["type"] != "http":
            return  # a WebSocket, which nothing here speaks: closed without an answer
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers) or self._entry(scope, headers)
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        scope[ADMITTED] = True
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
                raise TooLarge(self._too_large_text())
            return message

        await self.app(scope, receive_bounded, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that is not the page's; None for one that may be."""
        host = headers.get("host", "")
        if HOST.fullmatch(host) is None:
            return _plain(HTTPStatus.MISDIRECTED_REQUEST, "this address is not the studio's")
        origin = headers.get("origin")
        if origin is None and scope["method"] not in SAFE_METHODS:
            return _plain(HTTPStatus.FORBIDDEN, "a change needs the header Origin")
        if origin is not None and origin != f"http://{host}":
            return _plain(HTTPStatus.FORBIDDEN, "another site sent this")
        # A link on another site may open the page, which then loads everything from here.
        opened = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opened:
            return _plain(HTTPStatus.FORBIDDEN, "another site sent this")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_body_bytes:
            return _plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large_text())
        return None

    def _entry(self, scope: Scope, headers: Headers) -> Response | None:
        """The cookie for the printed address, a refusal without either, None with the cookie."""
        if scope["method"] == "GET" and scope["path"] == "/":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
            if given and self._is_token(given[-1]):
                response = RedirectResponse("/", HTTPStatus.SEE_OTHER)  # out of the address bar
                response.set_cookie(
                    self._cookie(headers), self.token, httponly=True, samesite="strict",
                    max_age=30 * 86400,
                )  # fmt: skip
                return response
        cookies = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            cookies.clear()
        given_cookie = cookies.get(self._cookie(headers))
        if given_cookie is not None and self._is_token(given_cookie.value):
            return None
        return _plain(
            HTTPStatus.UNAUTHORIZED,
            "open the address that `python -m studio` has printed; it ends in a token",
        )

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.token.encode())

    def _cookie(self, headers: Headers) -> str:
        """Browsers share cookies between the ports of a host, so the name has the port."""
        return f"studio-{headers['host'].rpartition(':')[2]}"

    def _too_large_text(self) -> str:
        return f"the body is over {self.max_body_bytes} bytes, the longest that the studio reads"


def _plain(status: HTTPStatus, text: str) -> Response:
    return PlainTextResponse(text + "\n", status)
