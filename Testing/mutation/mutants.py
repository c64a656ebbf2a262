"""One small change of a module's syntax tree at a time."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Mutant:
    """A changed module.

    :param name: function and change, with a number where the same change can be made at several places; it does not
        depend on the line, so that an explanation stays with its mutant.
    :param line: of the source.
    :param tree: the whole module.
    """

    name: str
    line: int
    in_function: bool
    source: str
    number: int
    changed: ast.AST

    @property
    def tree(self) -> ast.Module:
        """The changed module."""
        return _with(ast.parse(self.source), self.number, self.changed)


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module's source text.

    Not changed: docstrings, annotations, decorators, imports, what only type checkers run, and texts for people
    (strings and f-strings that hold a space, with what is put into them).
    """
    found, seen = [], Counter()
    original = ast.parse(source)
    numbers = {id(node): number for number, node in enumerate(ast.walk(original))}
    functions = [node for node in ast.walk(original) if isinstance(node, ast.FunctionDef)]
    in_functions = {id(part) for node in functions for statement in node.body for part in ast.walk(statement)}
    for node, where in _changeable(original, ""):
        for changed, what in _changes(node):
            name = f"{where or 'module'}: {what}"
            seen[name] += 1
            number = f" #{seen[name]}" if seen[name] > 1 else ""
            found.append(
                Mutant(name + number, node.lineno, id(node) in in_functions, source, numbers[id(node)], changed)
            )
    return found


def _changeable(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.JoinedStr) and any(
        isinstance(part, ast.Constant) and " " in str(part.value) for part in node.values
    ):
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if hasattr(node, "lineno"):
        yield node, where
    inner = where
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        inner = f"{where}.{node.name}" if where else node.name
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cast":
        node = ast.Expr(node.args[1])
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changeable(child, inner)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The node's variants, and what was changed in words of the source."""
    for index, changed in enumerate(_variants(node)):
        if isinstance(node, ast.Dict):
            left_out = node.keys[index] or node.values[index]
            yield changed, f"no {ast.unparse(left_out)} among {{…}}"
        elif isinstance(node, ast.Call) and len(changed.keywords) < len(node.keywords):
            gone = next(k for k in node.keywords if k not in changed.keywords)
            yield changed, f"no {ast.unparse(gone)} among {_shown(node.func)}(…)"
        else:
            yield changed, f"{_shown(node)} → {_shown(changed)}"


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                ops = [*node.ops]
                ops[index] = other()
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        for index in range(len(node.values)):
            values = node.values[:index] + node.values[index + 1 :]
            yield values[0] if len(values) == 1 else ast.BoolOp(node.op, values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in OPERATORS:
            yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is not None:
                yield ast.Call(node.func, node.args, [other for other in node.keywords if other is not keyword])
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name in OPPOSITES:
            func = copy.copy(node.func)
            setattr(func, "attr" if isinstance(func, ast.Attribute) else "id", OPPOSITES[name])
            yield ast.Call(func, node.args, node.keywords)
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        for value in (True, False):
            if not (value and isinstance(node, ast.While)):
                changed = copy.copy(node)
                changed.test = ast.Constant(value)
                yield changed
    elif isinstance(node, ast.Return):
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr | ast.Raise):
        yield ast.Pass()
    elif isinstance(node, ast.Continue):
        yield ast.Break()
    elif isinstance(node, ast.Break):
        yield ast.Continue()
    elif isinstance(node, ast.Dict):
        for index in range(len(node.keys)):
            yield ast.Dict(node.keys[:index] + node.keys[index + 1 :], node.values[:index] + node.values[index + 1 :])
    elif isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Tuple):
        for index in range(len(node.type.elts)):
            kinds = ast.Tuple(node.type.elts[:index] + node.type.elts[index + 1 :], ast.Load())
            yield ast.ExceptHandler(kinds, node.name, node.body)


def _other_constants(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str) and " " not in value:
        yield ast.Constant("XX" + value)


def _shown(node: ast.AST) -> str:
    """A node on one line: of a statement its first line, of an ``if`` its condition."""
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    if isinstance(node, ast.ExceptHandler):
        return f"except {ast.unparse(node.type)}"
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node)))
    return text.splitlines()[0] if text else "''"


def _with(tree: ast.Module, number: int, changed: ast.AST) -> ast.Module:
    """The tree with its node of that number, in the order of ``ast.walk``, replaced."""
    place = list(ast.walk(tree))[number]

    class Replacer(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is place:
                return ast.copy_location(copy.deepcopy(changed), node)
            return self.generic_visit(node)

    return ast.fix_missing_locations(Replacer().visit(tree))
