"""``KEY=VALUE`` of the command line: what a value is, and how one is written so that it comes back."""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import DictAction

_DICT = re.compile(r"\bdict\s*\(|(?<!\$)\{\s*\}|(?<!\$)\{[^{}]*:")  # not ${a rule}, nor a plan's {data set}


class KeyValues(DictAction):
    """mmengine's ``KEY=VALUE`` with a sentence for what is not of that form; blanks in a path stay in it.

    A value may be a ``dict(...)`` or a list of them, written as in a config, or a rule, ``${queue_size(65536, 32)}``.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Parse each pair and add it to those given before."""
        options: dict[str, Any] = dict(getattr(namespace, self.dest))
        for pair in values:
            key, equals, value = pair.partition("=")
            if not (key.strip("+") and equals):
                raise argparse.ArgumentError(self, f"expected KEY=VALUE such as train_cfg.max_epochs=100, got {pair!r}")
            try:
                options[key] = _value(value)
            except (SyntaxError, ValueError) as error:
                raise argparse.ArgumentError(
                    self, f"{pair!r}: expected values as in a config, KEY=dict(type='Name', option=1); {error}"
                ) from error
            except (AssertionError, RecursionError) as error:
                raise argparse.ArgumentError(self, f"{pair!r}: brackets that are opened must be closed") from error
        setattr(namespace, self.dest, options)


def spelled(value: Any) -> str:
    """A value as it stands behind ``KEY=`` and comes back from there; without blanks but those of texts."""
    if not isinstance(value, str):
        return _spelled(value)
    try:
        same = _value(value) == value
    except (SyntaxError, ValueError, AssertionError, RecursionError):
        same = False
    return value if same else repr(value)


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_spelled(key)}:{_spelled(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inner = ",".join(map(_spelled, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    return repr(value)


def _value(text: str) -> Any:
    """What stands behind ``KEY=``: as mmengine's parser takes it, but for texts in quotes, dicts and folders' names.

    Raises:
        SyntaxError, ValueError, AssertionError, RecursionError: it begins as a value that it is not.
    """
    if text.startswith(("'", '"')):
        with contextlib.suppress(SyntaxError, ValueError):
            if isinstance(quoted := ast.literal_eval(text), str):
                return quoted
    in_brackets = text.startswith(("[", "("))
    listed = in_brackets or ("," in text and not text.startswith("${"))
    if _DICT.match(text) or (listed and _DICT.search(text)):
        return _python_value(ast.parse(text, mode="eval").body)
    if in_brackets and ("'" in text or '"' in text):
        # mmengine's parser takes the blanks out of texts; names without quotes, which it alone takes, have none
        with contextlib.suppress(SyntaxError, ValueError):
            return _python_value(ast.parse(text, mode="eval").body)
    return DictAction._parse_iterable(text) if listed else _one_value(text)


def _python_value(node: ast.expr) -> Any:
    """Literals and ``dict(...)`` of them.

    Raises:
        ValueError: something else.
    """
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        options = {keyword.arg: _python_value(keyword.value) for keyword in node.keywords}
        if None not in options:  # **more
            return options
    if isinstance(node, (ast.List, ast.Tuple)):
        kind = list if isinstance(node, ast.List) else tuple
        return kind(map(_python_value, node.elts))
    if isinstance(node, ast.Dict):
        return dict(zip(map(ast.literal_eval, node.keys), map(_python_value, node.values), strict=True))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is no value") from None


def _one_value(text: str) -> Any:
    text = text.strip("'\"")
    if re.fullmatch(r"0\d+|\d+(_\d+)+", text) and not re.fullmatch(r"\d{1,3}(_\d{3})+", text):
        return text  # the name of a folder, 2024_05 or 007, which Python would read as a number
    return DictAction._parse_int_float_bool(text)
