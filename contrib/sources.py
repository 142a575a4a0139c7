"""Parts of our source files, and edits of upstream's that fail where upstream has changed."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def function_of(file: str, name: str) -> ast.FunctionDef:
    """A function of one of our files, parsed."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == name
    )


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that stands in a file exactly once."""
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(
            f"Expected once in {path}:\n{old}\nFound {text.count(old)} times.\nUpstream has changed: adapt contrib/."
        )
    path.write_text(text.replace(old, new), encoding="utf-8")


def lay_file(
    upstream: Path, name: str, place: str, source: str = "upstream_files"
) -> Path:
    """Copy a file of ours that is written for upstream."""
    path = upstream / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        (ROOT / "contrib" / source / name).read_text(encoding="utf-8"), encoding="utf-8"
    )
    return path


def lay_test(upstream: Path, name: str, place: str) -> Path:
    """Copy a test of ours that is written for upstream."""
    return lay_file(upstream, name, place, source="upstream_tests")
