"""A reader of our HTML pages, which must be sound and need nothing else."""

import re
from html.parser import HTMLParser

VOID = ("meta", "br", "path", "use", "image", "rect")


class Page(HTMLParser):
    """Elements in order, and what a reader finds in them; refuses elements that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.text, self.ids, self.links = (
            [],
            [],
            [],
            "",
            [],
            [],
        )
        self.labels = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        self.tags.append(tag)
        self.ids += [own["id"]] if "id" in own and tag == "section" else []
        self.links += [own[k] for k in ("href", "src", "xlink:href") if k in own]
        self.labels += [own.get("aria-label")] if tag == "svg" else []
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name == "xlink:href"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(path):
    """What is on a page, which needs no other file and is sound HTML."""
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    plain = re.sub(r'"data:image/png;base64,[^"]*"', "", text)
    assert not re.search(r"https?:|//|@import|url\((?!#)", plain)
    assert all(link.startswith(("#", "data:image/png")) for link in found.links)
    assert "script" not in found.tags
    assert found.headings[0] == 1
    steps = zip(found.headings, found.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps)
    assert len(set(found.ids)) == len(found.ids)
    assert all(found.labels)
    return found
