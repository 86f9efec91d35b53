"""The random seeds that code names, read from the code without running it.

A seed is what `manual_seed` gets, what an argument called `seed` or `seeds` gets, and what a name
with "seed" in it is set to, by assignment or by a loop. A single number for `seeds` asks for that
many, counted from 0. What depends on more than constants and loops over them stays source text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

SAFE = (ast.Constant, ast.List, ast.Tuple, ast.Starred, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp)
SAFE += (ast.Call, ast.operator, ast.unaryop)
BUILTINS = {"range": range, "list": list, "tuple": tuple}
LONGEST = 32  # characters of source text that a reader may be shown


def seeds_of(tree: ast.Module) -> tuple[list[int], list[str]]:
    """The seeds in ascending order, and the source of those that only a run would tell."""
    known = _constants(tree)
    loops = {name: values for name, node in _loops(tree) if (values := _numbers(node, known, {}))}
    numbers: set[int] = set()
    texts: dict[str, None] = {}
    for name, node in _givers(tree):
        found = _numbers(node, known, loops)
        if found is None:
            if not _is_passed_on(node):
                texts[ast.unparse(node)] = None
        elif name == "seeds" and len(found) == 1 and isinstance(node, ast.Constant):
            numbers |= set(range(found[0]))
        else:
            numbers |= set(found)
    return sorted(numbers), [text for text in texts if len(text) <= LONGEST]


def compact(numbers: list[int]) -> str:
    """Numbers in ascending order with runs of three or more joined: 0–7, 100."""
    if not numbers:
        return ""
    starts = [0] + [i + 1 for i, (a, b) in enumerate(pairwise(numbers)) if b != a + 1]
    runs = [numbers[a:b] for a, b in pairwise([*starts, len(numbers)])]
    return ", ".join(
        f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def _givers(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Each expression that gives seeds, with the name it is given to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if getattr(node.func, "attr", "") == "manual_seed" and node.args:
                yield "seed", node.args[0]
            for keyword in node.keywords:
                if keyword.arg in ("seed", "seeds"):
                    yield keyword.arg, keyword.value
    for name, node in [*_assignments(tree), *_loops(tree)]:
        if "seed" in name.lower() and _is_plain(node):
            yield name, node


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _pairs(target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are set to, `a, b = 1, 2` taken apart."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for each, part in zip(target.elts, value.elts, strict=False):
            yield from _pairs(each, part)


def _loops(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
            yield node.target.id, node.iter


def _constants(tree: ast.Module) -> dict[str, object]:
    """The values of names that are set to a constant expression, once."""
    known: dict[str, object] = {}
    for name, node in _assignments(tree):
        value = _value(node, known)
        known[name] = None if name in known and known[name] != value else value
    return {name: value for name, value in known.items() if value is not None}


def _is_plain(node: ast.AST) -> bool:
    """Whether an expression is made of constants, names and sums of them only."""
    return all(isinstance(each, SAFE) for each in ast.walk(node)) and all(
        isinstance(each.func, ast.Name) and each.func.id in BUILTINS
        for each in ast.walk(node)
        if isinstance(each, ast.Call)
    )


def _value(node: ast.expr, known: dict[str, object]) -> object:
    """What a plain expression is, or None."""
    if not _is_plain(node):
        return None
    code = compile(ast.Expression(node), "seeds", "eval")
    try:
        return eval(code, {"__builtins__": {}}, BUILTINS | known)
    except Exception:  # a name that only a run would tell
        return None


def _numbers(node: ast.expr, known: dict, loops: dict[str, list[int]]) -> list[int] | None:
    """The whole numbers that an expression gives, over all turns of the loops it depends on."""
    names = [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and each.id in loops]
    if names and names[0] not in known:
        turns = [_numbers(node, known | {names[0]: turn}, loops) for turn in loops[names[0]]]
        return [n for turn in turns for n in turn] if None not in turns else None
    value = _value(node, known)
    several = value if isinstance(value, list | tuple | range) else [value]
    return list(several) if all(type(each) is int for each in several) else None


def _is_passed_on(node: ast.AST) -> bool:
    """Whether an expression only hands seeds on that have been found where they were set."""
    return any("seed" in each.id.lower() for each in ast.walk(node) if isinstance(each, ast.Name))
