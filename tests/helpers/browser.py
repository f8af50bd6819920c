"""Pages in a browser, where there is one, without a network."""

import html
import json
import re
import shutil
import subprocess


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_browser(page, tmp_path, place: str = "", script: str = "") -> str:
    """The page as the browser sees it once a script has run there; what the script returns is in `<pre id=out>`."""
    then = (
        f"<script>setTimeout(() => {{ const out = (() => {{ {script} }})(); const p = document.createElement('pre');"
    )
    then += (
        "p.id = 'out'; p.textContent = JSON.stringify(out ?? null); document.body.append(p); }, 300)</script></body>"
    )
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text(encoding="utf-8").replace("</body>", then), encoding="utf-8")
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --dump-dom --virtual-time-budget=5000"
    )
    command = [BROWSER, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"file://{changed}#{place}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, encoding="utf-8").stdout


def returned(dom: str):
    (text,) = re.findall(r'<pre id="out">(.*?)</pre>', dom)
    return json.loads(text.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


def in_frames(page, tmp_path, widths, script: str):
    """What a script returns of a page (`page`, a document) in frames of these widths in pixels, in the same order."""
    text = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{text}"></iframe>' for width in widths)
    outer = tmp_path / "frames.html"
    outer.write_text(f"<!doctype html><body>{frames}</body>", encoding="utf-8")
    each = (
        f"[...document.querySelectorAll('iframe')].map((frame) => ((page) => {{ {script} }})(frame.contentDocument))"
    )
    return returned(in_browser(outer, tmp_path, script=f"return {each};"))
