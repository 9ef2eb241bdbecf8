"""Every citation in the code and in the documentation leads somewhere.

To a section of docs/method.md that exists, or to a place in a paper that the table at the end of that page lists.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
METHOD = "docs/method.md"
FOLDERS = ("assets", "benchmarks", "datasets", "dnnlib", "docs", "metrics", "tests", "torch_utils", "training")
FILES = sorted(
    path
    for pattern in ("*.py", "*.md", "*.toml", "*.txt", "*.html")
    for path in (*ROOT.glob(pattern), *(path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)))
    if "views" not in path.parts  # camera files
)
CITING = [path for path in FILES if path.suffix in (".py", ".md") and path != Path(__file__)]

WORDS = {"eq.": "equation", "eqs.": "equation", "appendices": "appendix"}
NUMBER = r"(?:[IVX]+\.[A-Z]\b|\d+(?:\.\d+)*|[A-Z]\b)"
PLACES = re.compile(
    rf"\b((?i:sections?|equations?|eqs?\.|algorithms?|appendix|appendices|tables?|figures?))\s+"
    rf"({NUMBER}(?:(?:,| and|, and| or| to)\s+{NUMBER})*)"
)
_YEAR = r"(?:19|20)\d\d"
AUTHORS = re.compile(  # "(Collins 1996)", and without brackets where there are several
    rf"(?<=\()[A-Z][a-z]+ {_YEAR}(?=\))|\b[A-Z]\w+(?:(?:, [A-Z]\w+)* and [A-Z]\w+| et al\.)\s+{_YEAR}\b"
)
FIRST_AUTHORS = re.compile(rf"[A-Z]\w+[^:*]*? {_YEAR}")
ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")

Place = tuple[str, str]  # ("equation", "47")


def places(text: str) -> list[tuple[int, Place]]:
    """Where in the text which places are cited."""
    found = []
    for match in PLACES.finditer(text):
        word = match[1].lower()
        kind = WORDS.get(word, word.rstrip("s"))
        found += [(match.start(), (kind, number)) for number in re.findall(NUMBER, match[2])]
    return found


@lru_cache
def papers() -> list[tuple[list[str], str, set[Place]]]:
    """The rows of the table: names of a paper, its row, the places that are cited."""
    section = (ROOT / METHOD).read_text(encoding="utf-8").partition("## 12. Papers")[2]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert rows
    return [
        (
            re.findall(r"\*\*(.+?)\*\*", name) + FIRST_AUTHORS.findall(name)[:1],
            name,
            {place for _, place in places(cited)},
        )
        for name, cited in rows
    ]


@lru_cache
def sections_of_method() -> set[Place]:
    headings = re.findall(r"^##+ (\d+(?:\.\d+)*)\. ", (ROOT / METHOD).read_text(encoding="utf-8"), re.MULTILINE)
    return {("section", number) for number in headings}


def works(text: str) -> list[tuple[int, set[Place]]]:
    """Where in the text which work is named, and the places that it has. A name of two papers stands for both."""
    found = [(match.start(), sections_of_method()) for match in re.finditer(re.escape("method.md"), text)]
    by_name: dict[str, set[Place]] = {}
    for names, _, listed in papers():
        for name in names:
            by_name[name] = by_name.get(name, set()) | listed
    for name, listed in by_name.items():
        pattern = r"(?<![\w-])" + re.escape(name).replace(r"\ ", r"\s+") + r"(?![\w+-])"
        found += [(match.start(), listed) for match in re.finditer(pattern, text)]
    return sorted(found, key=lambda item: item[0])


def blocks(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of what people read: docstrings and runs of comments, or the paragraphs of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        line = 1
        for paragraph in re.split(r"(\n\s*\n)", text):
            yield line, paragraph
            line += paragraph.count("\n")
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (docstring := ast.get_docstring(node)):
            yield node.body[0].lineno, docstring
    comments = [
        (token.start[0], token.string.lstrip("# "))
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    for _, run in groupby(enumerate(comments), key=lambda item: item[1][0] - item[0]):
        lines = [comment for _, comment in run]
        yield lines[0][0], "\n".join(text for _, text in lines)


def dangling(path: Path) -> list[str]:
    """The citations of a file that lead nowhere."""
    wrong = []
    everything = list(blocks(path))
    default = [(0, sections_of_method())] if path == ROOT / METHOD else []
    if path.suffix == ".py" and everything:
        default = works(everything[0][1])[:1]  # what a module's docstring names first, the module is about
    arxiv = set(ARXIV.findall(" ".join(row for _, row, _ in papers())))
    known = {name for names, _, _ in papers() for name in names}
    for line, text in everything:
        named = works(text)
        for position, place in places(text):
            before, after = [w for w in named if w[0] < position], [w for w in named if w[0] > position]
            candidates = before[-1:] or after[:1] or default
            if not candidates or place not in candidates[0][1]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {' '.join(place)}")
        unknown = set(ARXIV.findall(text)) - arxiv
        unknown |= {re.sub(r"\s+", " ", name) for name in AUTHORS.findall(text)} - known
        wrong += [f"{path.relative_to(ROOT)}:{line}: {name}" for name in sorted(unknown)]
    return wrong


@pytest.mark.parametrize("path", CITING, ids=lambda path: str(path.relative_to(ROOT)))
def test_citations_lead_somewhere(path: Path) -> None:
    found = dangling(path)
    assert not found, f"not in {METHOD} (its sections, or the table of papers):\n" + "\n".join(found)


def test_nothing_cites_a_page_that_readers_do_not_have() -> None:
    word = re.compile(r"\bSP" + r"EC\b")
    found = [str(path.relative_to(ROOT)) for path in FILES if word.search(path.read_text(encoding="utf-8"))]
    assert not found, f"cite a section of {METHOD} instead"


def test_links_within_the_method_page_and_to_it() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^##+ (.+)$", (ROOT / METHOD).read_text(encoding="utf-8"), re.MULTILINE)
    }
    for path in CITING:
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" else ""
        prefix = r"\]\(" if path == ROOT / METHOD else r"method\.md"
        assert set(re.findall(prefix + r"#([\w-]+)\)", text)) <= anchors, path


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('"""EDM2, equation 47."""', True),
        ('"""EDM2, equations 47 and 48."""', False),
        ('"""Of EDM.\n\nEquation 3, algorithms 1 and 2."""', True),
        ('"""Of EDM."""\nx = 1  # EDM2 (figure 21),\n# and equation 15', True),
        ('"""Of EDM."""\nx = 1  # equation 15', False),
        ('"""See docs/method.md, section 5.3."""', True),
        ('"""See docs/method.md, section 5.33."""', False),
        ('"""Wang et al. 2004, section III.C."""', True),
        ('"""Wang et al. 2005."""', False),
        ('"""Equation 1."""', False),
        ('"""arXiv:2312.02697."""', False),
    ],
)
def test_what_counts_as_dangling(text: str, right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    sections_of_method(), papers()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert (not dangling(path)) == right
