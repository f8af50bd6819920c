"""Pages for the browser: one HTML file that needs no server, no connection and no other file."""

from pathlib import Path
from typing import Any


_TEMPLATES = Path(__file__).with_name("page_template")


def html_page(title: str, body: str, style: str = "", scripts: str = "") -> str:
    """A page in the style that all pages share, light or dark as the browser is set.

    It may load nothing, and runs no script but the given ones.

    Args:
        body: HTML, in which everything that comes from data is escaped.
        style: CSS rules beside the common ones.
        scripts: JavaScript that is run after the body.
    """
    common = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return fill("page.html", title=title, body=body, style=f"{common}{style}".strip(), scripts=scripts)


def fill(template: str, **values: Any) -> str:
    """A template of `page_template/` with values in it, which are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(values)
