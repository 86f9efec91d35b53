"""Score pages of the built site with Lighthouse, on its slow phone, served as Pages serves them."""

import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from browser import find_browser

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
LIGHTHOUSE = "lighthouse@12.8.2"
LEAST = {"performance": 75, "accessibility": 100, "best-practices": 100, "seo": 100}
PACKED = {".html", ".css", ".js", ".svg", ".json"}


class Packed(SimpleHTTPRequestHandler):
    """Sends text as gzip, and keeps its connections."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(file)))
        if file.suffix in PACKED:
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def scores(address: str, browser: str) -> dict[str, int]:
    """Lighthouse's four scores of a page, from 0 to 100."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = ["npx", "--yes", LIGHTHOUSE, address, "--quiet", "--output=json"]
        flags = f"--headless=new --no-sandbox --disable-gpu --user-data-dir={folder}/profile"
        subprocess.run(
            [*command, f"--output-path={report}", f"--chrome-flags={flags}"],
            env=os.environ | {"CHROME_PATH": browser},
            check=True,
        )
        categories = json.loads(report.read_text("utf-8"))["categories"]
    return {name: round(100 * categories[name]["score"]) for name in LEAST}


def main(*names: str) -> int:
    if not shutil.which("npx"):
        raise FileNotFoundError("no npx. Install Node.js, which brings it.")
    browser = find_browser()
    failed = False
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Packed, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in names or ("true_l0",):
            page = f"book/{name}.html"
            if not (SITE / page).is_file():
                raise FileNotFoundError(f"no page {page} in {SITE}. Run `make book` first.")
            found = scores(f"http://127.0.0.1:{server.server_port}/{page}", browser)
            print(f"{page}:", ", ".join(f"{kind} {score}" for kind, score in found.items()))
            failed |= any(found[kind] < least for kind, least in LEAST.items())
        server.shutdown()
    if failed:
        print(f"error: expected at least {LEAST}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
