"""Look at the built site: python tests/site/look.py SITE PICTURES

Every link within the site must lead somewhere. Ten pages are opened in Chromium, wide and as wide as a phone: the
console must stay empty, nothing may reach out of the screen, axe must find nothing serious. Pictures of them lie in
PICTURES. Chromium is the one that playwright installs, or that the variable CHROMIUM names.
"""

import os
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PAGES = ("", "tour", "gallery", "results", "lab_files", "decoding", "alignment", "generation", "models", "reference")
SCREENS = {"wide": (1280, 900), "phone": (390, 844)}


class Page(HTMLParser):
    """Addresses that a page refers to, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values[name] or "" for name in ("href", "src") if values.get(name)]
        self.anchors |= {values[name] or "" for name in ("id", "name") if values.get(name)}


def dead_links(site: Path) -> list[str]:
    """Links from any page of the site to a file or an anchor that is not there."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            known = pages.get(site.resolve() / target.relative_to(site.resolve())) if target.exists() else None
            if not target.exists() or (parts.fragment and known and unquote(parts.fragment) not in known.anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def look(address: str, pictures: Path) -> list[str]:
    """Faults of the pages in a browser; a picture of each page and screen is left in a folder."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        for screen, (width, height) in SCREENS.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.set_default_timeout(180_000)  # a long page takes minutes on a busy machine
            said: list[str] = []
            tab.on("console", lambda message, said=said: message.type == "error" and said.append(message.text))
            tab.on("pageerror", lambda error, said=said: said.append(str(error)))
            tab.on("requestfailed", lambda request, said=said: said.append(f"not loaded: {request.url}"))
            for page in PAGES:
                said.clear()
                tab.goto(f"{address}/{page}{'/' if page else ''}", wait_until="networkidle")
                tab.screenshot(path=pictures / f"{page or 'home'}_{screen}.png", full_page=screen == "wide")
                beyond = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                if beyond > 0:
                    said.append(f"{beyond} pixels wider than the screen")
                for found in Axe().run(tab).response["violations"]:
                    if found["impact"] in ("serious", "critical"):
                        places = "; ".join(node["html"][:120] for node in found["nodes"][:3])
                        said.append(f"axe: {found['impact']}, {found['help']} ({len(found['nodes'])}): {places}")
                faults += [f"/{page} ({screen}): {line}" for line in said]
            tab.close()
        browser.close()
    return faults


if __name__ == "__main__":
    site, pictures = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    pictures.mkdir(parents=True, exist_ok=True)

    class Quiet(SimpleHTTPRequestHandler):
        """No line for each request."""

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    faults = [f"dead link: {line}" for line in dead_links(site)]
    faults += look(f"http://127.0.0.1:{server.server_port}", pictures)
    print("\n".join(faults) or f"{len(PAGES)} pages looked at, on {len(SCREENS)} screens: no fault")
    sys.exit(bool(faults))
