"""The book's directives: ``source``, ``rung``, ``computed``, ``xray``, ``picture``; and formulas as MathML, which browsers draw.

```{source} scratch/conv2d.py
naive_forward                     the function's text, pulled in from the file; without names the whole file
```                                 NAME.emitted is a word's emitter, NAME its meaning in Python
```{rung} conv2d im2col           a rung's idea, its measured gain and its parity figures
```{computed} layers one_tower    a table that a program computes; see TABLES
```{xray} conv2d                  a link to the operation's X-ray
```{picture} col2im               a drawing of pictures/; the content is its caption
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from latex2mathml.converter import convert
from pygments.formatters import HtmlFormatter
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralIncludeReader
from sphinx.highlighting import PygmentsBridge
from sphinx.util.docutils import SphinxDirective

from docs._ext import evidence, networks
from docs._ext.pictures import PICTURES
from scratch import use_rung

DASH = "\N{WORD JOINER}–\N{WORD JOINER}"  # at which no line breaks
SHORT = 20  # a name of so many letters stays on one line
MANY = 10  # a table with more columns has smaller letters
TABLES: dict[str, Callable[..., str]] = {
    "sizes": evidence.sizes,
    "parity": evidence.parity_table,
    "mutants": evidence.mutants,
    "layers": networks.layer_table,
    "variants": networks.variant_table,
}


class Source(SphinxDirective):
    """Functions of a file, or the whole file; with ``fold``, hidden until the reader clicks on a line."""

    required_arguments = 1
    has_content = True
    option_spec = {"fold": directives.unchanged}  # noqa: RUF012 - docutils' own way

    def run(self) -> list[nodes.Node]:
        names, path = " ".join(self.content).split(), evidence.ROOT / self.arguments[0]
        blocks = [self._block({"lines": lines_of(path, name)}) for name in names] or [self._block({})]
        if "fold" not in self.options:
            return blocks
        words = re.sub("(?<=[/_])", "<wbr>", self.options["fold"])
        summary = nodes.raw("", f"<details><summary>{words}</summary>", format="html")
        return [summary, *blocks, nodes.raw("", "</details>", format="html")]

    def _block(self, options: dict[str, Any]) -> nodes.Node:
        path = evidence.ROOT / self.arguments[0]
        reader = LiteralIncludeReader(path, {**options, "lineno-match": None}, self.config)
        text, lines = reader.read()
        where = f"{self.arguments[0]}, lines\N{NO-BREAK SPACE}{reader.lineno_start}{DASH}{reader.lineno_start + lines - 1}"
        block = nodes.literal_block(text, text, language="python", source=str(path))
        return nodes.container("", nodes.caption("", where), block, literal_block=True, classes=["literal-block-wrapper"])


def lines_of(path: Path, name: str) -> str:
    """The lines of that name's definition in a file, as "first-last", decorators included.

    Raises:
        LookupError: the file does not define the name.
    """
    name, _, emitted = name.partition(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if (f"{name}.emitted" in decorators) == bool(emitted):
                return f"{min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])}-{node.end_lineno}"
    raise LookupError(f"{path} defines no {name}{'.emitted' if emitted else ''}")


class RungCard(SphinxDirective):
    """A rung's idea, its speed, and how close it is to torch."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        operation, rung = self.arguments
        module = import_module(f"scratch.{operation}")
        optimizer = not hasattr(module, "forward")
        shown = {"The idea": module.RUNGS[rung].idea, "Errors": evidence.parity(operation, rung)}
        unit = "../" * self.env.docname.count("/") + "numerics.html#a-bound-that-can-be-computed"
        if not optimizer:  # an optimizer is only timed on a whole network
            shown["AlexNet's size"] = evidence.at_alexnets_size(operation, rung)
            shown["Small size"] = evidence.at_a_small_size(operation, rung)
        card = nodes.field_list(classes=["rung"])
        for name in ("The idea", "AlexNet's size", "Small size", "Errors"):
            if shown.get(name):
                # Mentions of the bound link to its explanation.
                before, of_the_bound, after = shown[name].partition("of the bound")
                link = [nodes.reference("", of_the_bound, refuri=unit)] if of_the_bound else []
                body = nodes.field_body("", nodes.paragraph("", "", nodes.Text(before), *link, nodes.Text(after)))
                card += nodes.field("", nodes.field_name("", name), body)
        return [card]


class Computed(SphinxDirective):
    """A table of :data:`TABLES`."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, *arguments = self.arguments
        return [nodes.container("", *self.parse_text_to_nodes(TABLES[name](*arguments)), classes=["computed"])]


class XrayLink(SphinxDirective):
    """A link to a page of the X-ray, which ``make docs`` writes next to the book; the content is the link's text."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        way = "../" * self.env.docname.count("/") + f"xray/{self.arguments[0]}.html"
        text = " ".join(self.content)
        return [nodes.paragraph("", "", nodes.reference(text, text, refuri=way), classes=["xray"])]


class Picture(SphinxDirective):
    """A drawing, with its caption below."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        draw = PICTURES[self.arguments[0]]
        with use_rung("naive"):  # the specification, which needs no compilation
            svg = draw().svg(draw.__doc__ or "")
        drawing = nodes.raw("", f'<div class="drawing">{svg}</div>', format="html")
        return [nodes.container("", drawing, *self.parse_content_to_nodes(), classes=["picture"])]


class CodeFormatter(HtmlFormatter[str]):  # type: ignore[misc]
    """Makes each line of code an element that knows its indent, so that the style sheet can wrap a long line further in."""

    def wrap(self, source: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Pygments' hook: (whether it is a line of the code, its HTML)."""
        return super().wrap((code, _line(text) if code else text) for code, text in source)  # type: ignore[no-any-return]


def _line(text: str) -> str:
    plain = re.sub(r"<[^>]*>", "", text)
    indent = len(plain) - len(plain.lstrip(" "))
    return f'<span class="line" style="--in: {indent + 2}">{text}</span>'


# A command with an argument that is not a formula, any other command, or a name of two letters or more.
_NAMES = re.compile(r"\\(?:begin|end|text|mathrm)\{[^}]*\}|\\[A-Za-z]+|([A-Za-z]{2,}(?:_[A-Za-z]+)*)")


def mathml(formula: str, display: str) -> str:
    r"""A formula for the page. The code's names are written as in the code: ``grad_x`` is one name, ``s_j`` has an index.

    Raises:
        ValueError: the formula has a LaTeX command that the converter does not know.
    """
    tex = _NAMES.sub(lambda found: rf"\text{{{found[1]}}}" if found[1] else found[0], formula)
    converted = convert(tex, display=display)
    if "\\" in converted:
        raise ValueError(f"{formula!r} came out as {converted!r}")
    return converted


_JOINTS = re.compile(r"[()\[\]{}]|\\(?:[lr]floor|[lr]ceil|begin|end)\b| (=|\+|\\cdot|\\sum)(?![A-Za-z])")
_OPENING = re.compile(r"\\lfloor|\\lceil|[(\[{]|\\begin")


def pieces(formula: str) -> list[list[str]]:
    """A formula in pieces between which its line may end: before each ``=``, and within a side before ``+``, ``·`` and sums.

    Nothing in brackets is taken apart.
    """
    sides: list[list[str]] = [[]]
    depth = start = 0
    for joint in _JOINTS.finditer(formula):
        if joint[1] is None:
            depth += 1 if _OPENING.fullmatch(joint[0]) else -1
        elif depth == 0 and not re.search(r"(^|[=+]|\\cdot|\\log|\\;)\s*$", formula[: joint.start()]):
            sides[-1].append(formula[start : joint.start()])
            start = joint.start()
            if joint[1] == "=":
                sides.append([])
    sides[-1].append(formula[start:])
    return sides


def _glue(app: Sphinx, document: nodes.document) -> None:
    """Move the punctuation after a formula into the formula: browsers would break the line between the two."""
    for formula in document.findall(nodes.math):
        following = formula.next_node(descend=False, siblings=True)
        if isinstance(following, nodes.Text) and (found := re.match(r"[^\w\s(]+", following)):
            formula["glued"] = found[0]
            following.parent.replace(following, nodes.Text(following[found.end() :]))


def _narrow(app: Sphinx, document: nodes.document) -> None:
    """Let a table's heading break after an underscore, and mark tables with many columns or short names in the first."""
    for table in document.findall(nodes.table):
        for text in [text for head in table.findall(nodes.thead) for text in head.findall(nodes.Text)]:
            text.parent.replace(text, nodes.Text(text.replace("_", "_\N{ZERO WIDTH SPACE}")))
        if len(table.next_node(nodes.row)) > MANY:
            table["classes"].append("many-columns")
        if max(len(row[0].astext()) for row in table.findall(nodes.row)) <= SHORT:
            table["classes"].append("short-names")


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(f'<span class="glued">{mathml(node.astext(), "inline")}{node.get("glued", "")}</span>')
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    # With an operand before it, if an empty one, an operator at the beginning has space on both sides.
    sides = [
        [mathml(piece, "block").replace("<mrow>", "<mrow><mi></mi>", 1) for piece in side]
        for side in pieces(node.astext().strip())
    ]
    shown = "".join(f"<span><span>{'</span><span>'.join(side)}</span></span>" for side in sides)
    translator.body.append(f'<div class="formula">{shown}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_directive("source", Source)
    app.add_directive("rung", RungCard)
    app.add_directive("computed", Computed)
    app.add_directive("xray", XrayLink)
    app.add_directive("picture", Picture)
    app.connect("doctree-read", _glue)
    app.connect("doctree-read", _narrow)
    PygmentsBridge.html_formatter = CodeFormatter
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
