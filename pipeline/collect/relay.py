"""What pages of other origins need of the collector: a provider's relay script, and leave to post to it (CORS).

The rules are those of the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol. No cookie is ever
asked for: who posts is known by the token in its `Authorization` header, so any origin may be let in.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from pipeline.providers import relay_script

#: how long a browser may use the script without asking whether it has changed
SCRIPT_AGE_SECONDS: Final = 300
#: how long a browser may remember that posting is allowed; Chromium takes no more
PREFLIGHT_AGE_SECONDS: Final = 7200
EXPOSED_HEADERS: Final = "Retry-After, X-Request-Id"


def add_relay(app: web.Application, names: Iterable[str], allowed_origins: tuple[str, ...]) -> None:
    """Serve the relay scripts of these providers, and let the pages of these origins (`*` for all) post to them.

    Adds `GET /relay/{provider}.js` and `OPTIONS /webhooks/{provider}`. The answers to the posts themselves must
    carry `cors_headers` as well.
    """
    scripts = {name: script for name in names if (script := relay_script(name)) is not None}
    tags = {name: f'"{hashlib.sha256(script).hexdigest()[:32]}"' for name, script in scripts.items()}

    async def serve_script(request: web.Request) -> web.Response:
        name = request.match_info["provider"]
        if name not in scripts:
            return web.json_response({"message": "no such relay"}, status=404)
        headers = {
            "ETag": tags[name],
            "Cache-Control": f"public, max-age={SCRIPT_AGE_SECONDS}",
            # The script is no secret, and is of use in pages of other origins only.
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        if any(tag.value == tags[name].strip('"') or tag.value == "*" for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=scripts[name], headers=headers, content_type="text/javascript", charset="utf-8"
        )

    async def answer_preflight(request: web.Request) -> web.Response:
        if request.match_info["provider"] not in scripts:
            return web.json_response({"message": "no page posts to this provider"}, status=404)
        headers = cors_headers(request.headers.get("Origin"), allowed_origins)
        if "Access-Control-Allow-Origin" in headers:
            headers |= {
                "Access-Control-Allow-Methods": "POST",
                "Access-Control-Allow-Headers": "authorization, content-type",
                "Access-Control-Max-Age": str(PREFLIGHT_AGE_SECONDS),
            }
            # A page of the internet that posts to a collector inside a company: https://wicg.github.io/private-network-access/
            if request.headers.get("Access-Control-Request-Private-Network") == "true":
                headers["Access-Control-Allow-Private-Network"] = "true"
        return web.Response(status=204, headers=headers)

    app.router.add_get("/relay/{provider}.js", serve_script)
    app.router.add_options("/webhooks/{provider}", answer_preflight)


def cors_headers(origin: str | None, allowed_origins: tuple[str, ...]) -> dict[str, str]:
    """What an answer needs so that a page of `origin` may read it.

    `origin` is the request's header of that name, None for a sender that is no browser. An origin is allowed if it
    is listed, in any case of its letters and with or without a slash at the end, or if `*` is.
    """
    allows_all = "*" in allowed_origins
    # Caches must not hand an answer for one origin to another.
    headers = {"Vary": "Origin"}
    if origin is None:
        return headers
    listed = {allowed.strip().rstrip("/").lower() for allowed in allowed_origins}
    if allows_all or origin.lower() in listed:
        headers["Access-Control-Allow-Origin"] = "*" if allows_all else origin
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
    return headers
