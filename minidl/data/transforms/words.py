"""Transforms as text: names with arguments, joined by "+", as recipes and the command line write them.

    flip    crop+flip    pad_crop(4)+flip    gcn(scale=55)+zca(bias=0.1)

Arguments are Python literals; nothing is evaluated.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any


def build(text: str, makers: Mapping[str, Callable[..., Any]], what: str) -> list[Any]:
    """What each word of the text stands for, made by the function of its name.

    ValueError naming the text, and the names there are, for a word that is no call of one of them or whose
    arguments its maker does not take; `what` says what kind of text it is.
    """
    try:
        parsed: ast.expr = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"{what} {text!r}: cannot be read; write names with their arguments, joined by +, as in "
            f'"{next(iter(makers))}"; the names are {", ".join(makers)}'
        ) from None
    words: list[ast.expr] = []
    while isinstance(parsed, ast.BinOp) and isinstance(parsed.op, ast.Add):
        words.append(parsed.right)
        parsed = parsed.left
    return [_make(word, text, makers, what) for word in reversed([*words, parsed])]


def _make(word: ast.expr, text: str, makers: Mapping[str, Callable[..., Any]], what: str) -> Any:
    call = word if isinstance(word, ast.Call) else None
    name = call.func if call else word
    if not isinstance(name, ast.Name) or name.id not in makers:
        raise ValueError(
            f"{what} {text!r}: there is no {ast.unparse(name)!r}; the names are {', '.join(makers)}, several "
            "are joined by +"
        )
    try:
        args = [ast.literal_eval(arg) for arg in call.args] if call else []
        options = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords} if call else {}
        return makers[name.id](*args, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} {text!r}: {ast.unparse(word)} does not work: {error}") from error
