"""The page's HTML: the service's own, with what a page without a server has in its place."""

from __future__ import annotations

# Everything comes from the page's own site, and nothing is sent to another one. WebAssembly needs a word of its own.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'"
)

NOTICE = "Everything is computed in this browser. Nothing is uploaded."

_CHANGES = (
    (
        '  <meta name="color-scheme" content="light dark">\n',
        '  <meta name="color-scheme" content="light dark">\n'
        f'  <meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '  <meta name="referrer" content="no-referrer">\n',
    ),
    (
        '  <script type="module" src="static/page.js"></script>\n',
        '  <link rel="stylesheet" href="static/local/page.css">\n'
        '  <script type="module" src="static/page.js"></script>\n'
        '  <script type="module" src="static/local/check.js"></script>\n'
        '  <script type="module" src="static/local/offline.js"></script>\n',
    ),
    (
        '    <nav aria-label="For programs">\n'
        '      <a href="openapi.json">API</a><a href="health">Health</a><a href="metrics">Metrics</a>\n'
        "    </nav>\n",
        '    <p id="offline" class="offline" role="status"></p>\n'
        '    <button id="check" type="button">Check this browser</button>\n',
    ),
    (
        "  <footer>\n",
        '  <section id="checked" class="card checked" aria-label="Check of this browser" hidden></section>\n'
        "  <footer>\n",
    ),
    ("This page needs JavaScript; programs can use the API (openapi.json).", "This page needs JavaScript."),
)


def page_html(service_page: str) -> str:
    """The page, from the one that the service sends.

    Raises:
        ValueError: a place that is to be changed is not there, or is there twice.
    """
    for before, after in _CHANGES:
        if service_page.count(before) != 1:
            raise ValueError(f"the page of the service has {service_page.count(before)} places {before!r}, not one")
        service_page = service_page.replace(before, after)
    return service_page
