# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""XML documents edited by splicing bytes: what an edit does not change stays as it was, byte by byte.

Needs the standard library alone. It knows nothing of what the documents mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_BYTES = 1024 * 1024

_CODECS = {"UTF-8": "utf-8", "US-ASCII": "ascii", "ISO-8859-1": "iso-8859-1"}
_NEWLINE = re.compile(rb"\r\n|\n|\r")
_TAG_NAME = re.compile(rb"<[^\s/>]+")
_TAG_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG_END = re.compile(rb"\s*/?>")
_COMMENTS_ON_THE_LINE = re.compile(rb"(?:[ \t]*<!--[^\r\n]*?-->)*")
_REST_OF_AN_EMPTY_LINE = re.compile(rb"[ \t]*(?:\r\n|\n|\r)")


@dataclass(frozen=True)
class Problem:
    """What is wrong and what would be right. line: in the document; None: not there, but in what was asked for."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}: {self.text}"


class InvalidXml(ValueError):
    """Holds every problem that was found, in problems."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Span:
    """Where the value of an attribute is, without its quotes, and which quotes it has."""

    start: int
    end: int
    quote: bytes


@dataclass(eq=False)
class Element:
    """An element, and the offsets of its start tag, its content, its end tag and its end."""

    name: str
    attributes: dict[str, str]
    spans: dict[str, Span]
    start: int
    content: int
    end_tag: int = 0
    end: int = 0
    children: list[Element] = field(default_factory=list)

    @property
    def is_empty_tag(self) -> bool:
        return self.content == self.end

    def named(self, *names: str) -> list[Element]:
        return [child for child in self.children if child.name in names]


class Document:
    """A well-formed document without a DOCTYPE, in UTF-8, US-ASCII or ISO-8859-1, of at most MAX_BYTES.

    Raises InvalidXml for anything else. An edit returns a new document; elements belong to
    the document that they come from.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.root, self.codec = _Reader(data).read()

    @property
    def text(self) -> str:
        return self.data.decode(self.codec)

    def line(self, element: Element, attribute: str | None = None) -> int:
        """The line of an attribute's value, or of the element where it has no such attribute."""
        span = element.spans.get(attribute) if attribute else None
        return 1 + len(_NEWLINE.findall(self.data, 0, span.start if span else element.start))

    def with_attributes(self, changes: Mapping[Element, Mapping[str, str]]) -> Document:
        """Set attributes of elements; new ones go behind the last that an element has."""
        splices = []
        for element, values in changes.items():
            last = max(element.spans.values(), key=lambda span: span.end, default=None)
            position = last.end + 1 if last else _end_of(_TAG_NAME, self.data, element.start)
            quote = last.quote if last else b'"'
            added = [self._attribute(name, value, quote) for name, value in values.items() if name not in element.spans]
            splices.append((position, position, b"".join(added)))
            for name, value in values.items():
                if name in element.spans:
                    span = element.spans[name]
                    splices.append((span.start, span.end, self._escaped(value, span.quote)))
        return self._spliced(*splices)

    def with_children(self, parent: Element, name: str, children: Iterable[Mapping[str, str]], after: Element | None = None) -> Document:
        """Add elements called name, one for each set of attributes, to parent, indented as their neighbours are.

        They go behind the child ``after``, or else to the end.
        """
        written = [self._empty_tag(name, attributes) for attributes in children]
        if parent.children:
            return self._with_siblings(after or parent.children[-1], written)
        before_end_tag = self._newline() and self._newline() + self._indentation(parent)
        before_child = before_end_tag and before_end_tag + self._indentation_step()
        content = b"".join(before_child + child for child in written) + before_end_tag
        if not parent.is_empty_tag:
            return self._spliced((len(self.data[: parent.end_tag].rstrip()), parent.end_tag, content))
        end_tag = b"</" + parent.name.encode(self.codec) + b">"
        return self._spliced((len(self.data[: parent.end - 2].rstrip()), parent.end, b">" + content + end_tag))

    def _with_siblings(self, sibling: Element, written: Iterable[bytes]) -> Document:
        # A comment behind the sibling on its line speaks of the sibling: it stays there.
        position = _end_of(_COMMENTS_ON_THE_LINE, self.data, sibling.end)
        before_each = self._newline() + self._indentation(sibling) if self._begins_line(sibling) else b""
        return self._spliced((position, position, b"".join(before_each + child for child in written)))

    def without(self, elements: Iterable[Element]) -> Document:
        """Remove elements, each with its line where nothing else is on it."""
        splices = []
        for element in elements:
            rest = _REST_OF_AN_EMPTY_LINE.match(self.data, element.end)
            if rest and self._begins_line(element):
                splices.append((self._line_start(element), rest.end(), b""))
            else:
                splices.append((element.start, element.end, b""))
        return self._spliced(*splices)

    def renamed(self, element: Element, name: str) -> Document:
        length = len(element.name.encode(self.codec))
        starts = [element.start + 1] if element.is_empty_tag else [element.start + 1, element.end_tag + 2]
        return self._spliced(*((start, start + length, name.encode(self.codec)) for start in starts))

    def _spliced(self, *splices: tuple[int, int, bytes]) -> Document:
        """Each (start, end, replacement); none overlaps another."""
        data = self.data
        for start, end, replacement in sorted(splices, reverse=True):
            data = data[:start] + replacement + data[end:]
        return self if data == self.data else Document(data)

    def _empty_tag(self, name: str, attributes: Mapping[str, str]) -> bytes:
        written = (self._attribute(key, value, b'"') for key, value in attributes.items())
        return b"<" + name.encode(self.codec) + b"".join(written) + b"/>"

    def _attribute(self, name: str, value: str, quote: bytes) -> bytes:
        return b" " + name.encode(self.codec) + b"=" + quote + self._escaped(value, quote) + quote

    def _escaped(self, value: str, quote: bytes) -> bytes:
        """value between such quotes, with a character reference for what the encoding does not have."""
        escaped = value.replace("&", "&amp;").replace("<", "&lt;")
        escaped = escaped.replace('"', "&quot;") if quote == b'"' else escaped.replace("'", "&apos;")
        return escaped.encode(self.codec, "xmlcharrefreplace")

    def _newline(self) -> bytes:
        """How lines end between the elements; nothing, where all of them are on one line."""
        found = _NEWLINE.search(self.data, self.root.start, self.root.end)
        if found is None and not self.root.children:
            found = _NEWLINE.search(self.data)
        return found[0] if found else b""

    def _line_start(self, element: Element) -> int:
        return max(self.data.rfind(b"\n", 0, element.start), self.data.rfind(b"\r", 0, element.start)) + 1

    def _begins_line(self, element: Element) -> bool:
        return not self.data[self._line_start(element) : element.start].strip(b" \t")

    def _indentation(self, element: Element) -> bytes:
        line = self.data[self._line_start(element) : element.start]
        return line[: len(line) - len(line.lstrip(b" \t"))]

    def _indentation_step(self) -> bytes:
        outer = self._indentation(self.root)
        for child in self.root.children:
            if self._begins_line(child) and self._indentation(child).startswith(outer):
                return self._indentation(child)[len(outer) :]
        return b"  "


class _Reader:
    """One reading of a document by expat, which checks it and tells where its tags are."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.codec = "utf-8"
        self.document = Element("", {}, {}, 0, 0)
        self.open = [self.document]
        self.parser = expat.ParserCreate()

    def read(self) -> tuple[Element, str]:
        """(root element, codec). Raises InvalidXml."""
        if len(self.data) > MAX_BYTES:
            raise InvalidXml([Problem(f"the document has {len(self.data)} bytes: must have at most {MAX_BYTES}")])
        if self.data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in self.data[:4]:
            raise self.refusal_of_encoding("UTF-16 or UTF-32")
        # A handler that raises stops expat there and then: no entity of a DOCTYPE is ever read, let alone expanded.
        self.parser.XmlDeclHandler = self.declaration
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        try:
            self.parser.Parse(self.data, True)
        except expat.ExpatError as error:
            why = f"{expat.ErrorString(error.code)}, in column {error.offset + 1}"
            raise InvalidXml([Problem(f"the document is not well-formed XML ({why})", error.lineno)]) from None
        return self.document.children[0], self.codec

    def refusal_of_encoding(self, encoding: str) -> InvalidXml:
        return self.refusal(f"the encoding is {encoding}: must be UTF-8, US-ASCII or ISO-8859-1")

    def refusal(self, text: str) -> InvalidXml:
        return InvalidXml([Problem(text, self.parser.CurrentLineNumber)])

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None:
            if encoding.upper() not in _CODECS:
                raise self.refusal_of_encoding(encoding)
            self.codec = _CODECS[encoding.upper()]

    def doctype(self, *_declared: object) -> None:
        raise self.refusal("the document has a DOCTYPE: must have none, because it could declare entities")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        start = self.parser.CurrentByteIndex
        position = _end_of(_TAG_NAME, self.data, start)
        spans = {}
        while match := _TAG_ATTRIBUTE.match(self.data, position):
            spans[match[1].decode(self.codec)] = Span(match.start(2) + 1, match.end(2) - 1, match[2][:1])
            position = match.end()
        element = Element(name, attributes, spans, start, content=_end_of(_TAG_END, self.data, position))
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, _name: str) -> None:
        element = self.open.pop()
        if self.data[element.content - 2 : element.content] == b"/>":
            element.end_tag = element.end = element.content
        else:
            element.end_tag = self.parser.CurrentByteIndex
            element.end = self.data.index(b">", element.end_tag) + 1


def _end_of(pattern: re.Pattern[bytes], data: bytes, start: int) -> int:
    """Where what expat has already found to be there, at start, ends."""
    match = pattern.match(data, start)
    if match is None:
        raise AssertionError(f"no {pattern.pattern!r} at byte {start}")
    return match.end()
