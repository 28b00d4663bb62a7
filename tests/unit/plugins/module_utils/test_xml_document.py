# Copyright: (c) 2026, The swg.ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import time

import pytest

from ansible_collections.swg.ha.plugins.module_utils.xml_document import MAX_BYTES, Document, InvalidXml


def only(document, name):
    return document.root.named(name)[0]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "line 1: the document is not well-formed XML (no element found, in column 1)"),
        (b"not XML", "line 1: the document is not well-formed XML (syntax error, in column 1)"),
        (b"<a>\n  <b></a>", "line 2: the document is not well-formed XML (mismatched tag, in column 8)"),
        (b"<a x='1' x='2'/>", "line 1: the document is not well-formed XML (duplicate attribute, in column 10)"),
        (b"<a/><b/>", "line 1: the document is not well-formed XML (junk after document element, in column 5)"),
        (b"<a>&nothing;</a>", "line 1: the document is not well-formed XML (undefined entity, in column 4)"),
        (b"<a x='\xff'/>", "line 1: the document is not well-formed XML (not well-formed (invalid token), in column 7)"),
        (b"\n<!DOCTYPE a>\n<a/>", "line 2: the document has a DOCTYPE: must have none, because it could declare entities"),
        ("<a/>".encode("utf-16"), "line 1: the encoding is UTF-16 or UTF-32: must be UTF-8, US-ASCII or ISO-8859-1"),
        ("<a/>".encode("utf-16-be"), "line 1: the encoding is UTF-16 or UTF-32: must be UTF-8, US-ASCII or ISO-8859-1"),
        (b"<?xml version='1.0' encoding='cp1252'?><a/>", "line 1: the encoding is cp1252: must be UTF-8, US-ASCII or ISO-8859-1"),
        (b"<?xml version='1.0' encoding='no-such'?><a/>", "line 1: the encoding is no-such: must be UTF-8, US-ASCII or ISO-8859-1"),
        (b"<a>" + b" " * MAX_BYTES + b"</a>", f"the document has {MAX_BYTES + 7} bytes: must have at most {MAX_BYTES}"),
    ],
)
def test_refused(data, problem):
    with pytest.raises(InvalidXml) as caught:
        Document(data)
    assert [str(each) for each in caught.value.problems] == [problem]


BILLION_LAUGHS = (
    b'<!DOCTYPE a [<!ENTITY l0 "lol">'
    + b"".join(b'<!ENTITY l%d "%s">' % (number, b"&l%d;" % (number - 1) * 10) for number in range(1, 15))
    + b"]><a>&l14;</a>"
)
EXTERNAL = b'<!DOCTYPE a [<!ENTITY file SYSTEM "file:///etc/passwd">]><a>&file;</a>'
EXTERNAL_SUBSET = b'<!DOCTYPE a SYSTEM "file:///dev/zero"><a/>'


@pytest.mark.parametrize("data", [BILLION_LAUGHS, EXTERNAL, EXTERNAL_SUBSET])
def test_entities_are_refused_before_anything_expands(data):
    started = time.process_time()
    with pytest.raises(InvalidXml, match="must have none"):
        Document(data)
    assert time.process_time() - started < 1


def test_a_doctype_in_a_comment_is_none():
    assert Document(b"<!-- <!DOCTYPE a> --><a/>").root.name == "a"


def test_where_things_are():
    data = b"<?xml version='1.0'?>\r\n<a\r\n  b='1>'\tc = \"'\"\r\n><d/><e >x</e\n></a>"
    document = Document(data)
    root = document.root
    assert root.attributes == {"b": "1>", "c": "'"}
    assert {name: data[span.start : span.end] for name, span in root.spans.items()} == {"b": b"1>", "c": b"'"}
    assert (document.line(root), document.line(root, "b"), document.line(root, "missing")) == (2, 3, 2)
    assert [data[child.start : child.end] for child in root.children] == [b"<d/>", b"<e >x</e\n>"]
    assert data[root.content : root.end_tag] == b"<d/><e >x</e\n>"


@pytest.mark.parametrize(
    ("data", "value", "expected"),
    [
        (b"<a b='1' c='2'/>", "x", b"<a b='x' c='2'/>"),
        (b'<a b = "1"  c="2" />', "x", b'<a b = "x"  c="2" />'),
        (b"<a c='2' />", "x", b"<a c='2' b='x' />"),
        (b'<a\n  c="2"\n/>', "x", b'<a\n  c="2" b="x"\n/>'),
        (b"<a></a>", "x", b'<a b="x"></a>'),
        (b"<a/>", "<&\"'>", b'<a b="&lt;&amp;&quot;\'>"/>'),
        (b"<a b=''/>", "<&\"'>", b"<a b='&lt;&amp;\"&apos;>'/>"),
        (b"\xef\xbb\xbf<a b='\xc3\xa4'/>", "\u20ac", b"\xef\xbb\xbf<a b='\xe2\x82\xac'/>"),
        (
            b"<?xml version='1.0' encoding='iso-8859-1'?><a \xe4='\xe4' b='\xe4'/>",
            "\xfc\u20ac",
            b"<?xml version='1.0' encoding='iso-8859-1'?><a \xe4='\xe4' b='\xfc&#8364;'/>",
        ),
        (
            b"<?xml version='1.0' encoding='US-ASCII'?><a b=''/>",
            "\xfc",
            b"<?xml version='1.0' encoding='US-ASCII'?><a b='&#252;'/>",
        ),
    ],
)
def test_with_attribute(data, value, expected):
    document = Document(data)
    document = document.with_attributes({document.root: {"b": value}})
    assert document.data == expected
    assert document.root.attributes["b"] == value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<a/>", b'<a><n k="v"/></a>'),
        (b"<a />\n", b'<a>\n  <n k="v"/>\n</a>\n'),
        (b"<a></a>\n", b'<a>\n  <n k="v"/>\n</a>\n'),
        (b"<a>\n</a>", b'<a>\n  <n k="v"/>\n</a>'),
        (b"<a>\n  <!-- none -->\n</a>", b'<a>\n  <!-- none -->\n  <n k="v"/>\n</a>'),
        (b"<a><b/></a>\n", b'<a><b/><n k="v"/></a>\n'),
        (b"<a>\n\t<b/>\n</a>", b'<a>\n\t<b/>\n\t<n k="v"/>\n</a>'),
        (b"<a>\r\n    <b/>\r\n</a>\r\n", b'<a>\r\n    <b/>\r\n    <n k="v"/>\r\n</a>\r\n'),
        (b"<a>\r  <b/>\r</a>", b'<a>\r  <b/>\r  <n k="v"/>\r</a>'),
        (b"<a>\n  <b/></a>", b'<a>\n  <b/>\n  <n k="v"/></a>'),
        (b"<a>\n  <b/> <!-- of b -->\n</a>", b'<a>\n  <b/> <!-- of b -->\n  <n k="v"/>\n</a>'),
        (b"<a>\n  <b>\n  </b>\n\n</a>", b'<a>\n  <b>\n  </b>\n  <n k="v"/>\n\n</a>'),
    ],
)
def test_with_children(data, expected):
    document = Document(data)
    assert document.with_children(document.root, "n", [{"k": "v"}]).data == expected


def test_several_children_and_attributes_at_once():
    document = Document(b"<a x='1'>\n  <b y='2'/>\n</a>")
    document = document.with_children(document.root, "n", [{"k": "1"}, {"k": "2"}])
    document = document.with_attributes({document.root: {"z": "3", "x": "longer"}, only(document, "b"): {"w": "5", "y": "4", "v": "6"}})
    assert document.data == b"<a x='longer' z='3'>\n  <b y='4' w='5' v='6'/>\n  <n k=\"1\"/>\n  <n k=\"2\"/>\n</a>"
    assert document.without(document.root.children[:2]).data == b"<a x='longer' z='3'>\n  <n k=\"2\"/>\n</a>"


def test_with_children_behind_another():
    document = Document(b"<a>\n  <b/>\n  <c/>\n</a>")
    assert document.with_children(document.root, "n", [{}], after=only(document, "b")).data == b"<a>\n  <b/>\n  <n/>\n  <c/>\n</a>"


def test_the_first_child_of_an_inner_element_is_indented_one_step_more():
    document = Document(b"<a>\n\t<b>\n\t\t<c/></b>\n\t<d/>\n</a>")
    assert document.with_children(only(document, "d"), "n", [{}]).data == b"<a>\n\t<b>\n\t\t<c/></b>\n\t<d>\n\t\t<n/>\n\t</d>\n</a>"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<a>\n  <b/>\n  <c/>\n</a>", b"<a>\n  <c/>\n</a>"),
        (b"<a>\r\n  <b/>  \r\n  <c/>\r\n</a>", b"<a>\r\n  <c/>\r\n</a>"),
        (b"<a>\n  <b>\n    <x/>\n  </b>\n</a>", b"<a>\n</a>"),
        (b"<a>\n  <b/> <!-- stays -->\n</a>", b"<a>\n   <!-- stays -->\n</a>"),
        (b"<a>\n  <!-- stays --> <b/>\n</a>", b"<a>\n  <!-- stays --> \n</a>"),
        (b"<a><b/><c/></a>", b"<a><c/></a>"),
        (b"<a>\n  <b/></a>", b"<a>\n  </a>"),
    ],
)
def test_without(data, expected):
    document = Document(data)
    assert document.without([only(document, "b")]).data == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"<a><b/></a>", b"<a><new/></a>"),
        (b"<a><b x='1'>t<b/></b ></a>", b"<a><new x='1'>t<b/></new ></a>"),
    ],
)
def test_renamed(data, expected):
    document = Document(data)
    assert document.renamed(only(document, "b"), "new").data == expected


def test_text_is_read_in_the_documents_encoding():
    assert Document(b"<?xml version='1.0' encoding='ISO-8859-1'?><a b='\xe4'/>").text.endswith("<a b='\xe4'/>")
