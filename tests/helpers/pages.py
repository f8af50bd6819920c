"""Looking at pages: their elements, as a browser finds them."""

from html.parser import HTMLParser


_VOID = {"meta", "img", "br", "input", "link"}
_REFERENCES = ("src", "href", "action", "srcset", "data", "poster", "xlink:href")


class Page(HTMLParser):
    """A page that must be well-formed: elements are closed in the order in which they were opened, and ids differ.

    Attributes:
        cells: the texts of the cells of its tables, row by row.
        references: what it refers to, besides its own parts.
        scripts: number of scripts.
        texts: all text that is shown.
        titles: the headings.
        labels: what is read out instead of pictures and groups.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.cells: list[list[str]] = []
        self.texts: list[str] = []
        self.labels: list[str] = []
        self.titles: list[str] = []
        self.scripts = 0
        self.feed(page)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)
        names = {f"#{name}" for name in self.ids}
        assert {one for one in self.references if one.startswith("#")} <= names
        self.references = [one for one in self.references if not one.startswith("#")]

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.references += [value for name, value in attrs if name in _REFERENCES]
        self.references += [style for style in [given.get("style") or ""] if "url(" in style and "url(#" not in style]
        self.labels += [given["aria-label"]] if "aria-label" in given else []
        self.scripts += tag == "script"
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag in ("h1", "h2"):
            self.titles.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data
        if {"h1", "h2"} & set(self.open):
            self.titles[-1] += data

    @property
    def all_cells(self) -> set[str]:
        return {cell for row in self.cells for cell in row}
