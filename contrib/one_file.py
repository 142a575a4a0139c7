"""NeuroBridgeModel as one file in upstream's manner: ``python contrib/one_file.py neurobridge.py``.

The modules that the model needs, in the order in which they need each other, without imports of ``neurobridge_tb``:
the file imports torch_brain and torch, and is upstream's ``torch_brain/models/neurobridge.py`` as it could be. Names that
two modules have of their own (``_like``) get their module's name as a suffix.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "neurobridge_tb"
START = f"{PACKAGE}.models.neurobridge"
REGISTERED = f"{PACKAGE}.registry_ext.modalities"  # nobody imports a name of it: it fills the registry
DOOR = f"{PACKAGE}._upstream"  # what comes from torch_brain


def file_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def own_imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """Imports from our package, at any depth of a file."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE)
    ]


def resolve(module: str, name: str) -> str:
    """The module that defines a name: packages hand on names of their modules."""
    path = file_of(module)
    stub = path.with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else path).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            origin = f"{module}.{origin}" if node.level else origin
            if origin.startswith(PACKAGE) and name in [
                a.asname or a.name for a in node.names
            ]:
                return resolve(origin, name)
    return module


def modules_in_order() -> dict[str, ast.Module]:
    """Each module that the model needs, after those that it needs itself."""
    trees: dict[str, ast.Module] = {}

    def visit(module: str) -> None:
        if module in trees or module == DOOR:
            return
        tree = ast.parse(file_of(module).read_text(encoding="utf-8"))
        for node in own_imports(tree):
            for alias in node.names:
                visit(resolve(node.module or "", alias.name))
        trees[module] = tree

    visit(REGISTERED)
    visit(START)
    return trees


def top_level_names(tree: ast.Module) -> set[str]:
    """What a module defines for itself."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {
                t.id
                for target in node.targets
                for t in ast.walk(target)
                if isinstance(t, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


class Renamer(ast.NodeTransformer):
    """Other names for a module's own, and imports of our package left out."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.name = self.names.get(node.name, node.name)
        self.generic_visit(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if (node.module or "").startswith(PACKAGE) else node


def one_file() -> str:
    """The text of the file, unformatted."""
    trees = modules_in_order()
    owners: dict[str, list[str]] = {}
    for module, tree in trees.items():
        for name in top_level_names(tree):
            owners.setdefault(name, []).append(module)
    new_name = {
        (module, name): f"{name}_{module.rpartition('.')[2]}"
        for name, modules in owners.items()
        if len(modules) > 1
        for module in modules
    }
    imports, upstream, body = {}, set(), []
    for module, tree in trees.items():
        names = {
            name: new for (owner, name), new in new_name.items() if owner == module
        }
        for node in own_imports(tree):
            for alias in node.names:
                origin = resolve(node.module or "", alias.name)
                if origin == DOOR:
                    upstream.add(alias.name)
                elif (origin, alias.name) in new_name:
                    names[alias.asname or alias.name] = new_name[origin, alias.name]
                elif alias.asname:
                    names[alias.asname] = alias.name
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                if not (
                    isinstance(node, ast.ImportFrom)
                    and (node.module or "").startswith(PACKAGE)
                ):
                    imports[ast.unparse(node)] = None
                continue
            is_docstring = isinstance(node, ast.Expr) and isinstance(
                node.value, ast.Constant
            )
            changed = None if is_docstring else Renamer(names).visit(node)
            if changed is not None:
                body.append(ast.unparse(changed))
    door = ast.parse(file_of(DOOR).read_text(encoding="utf-8"))
    for node in ast.walk(door):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "torch_brain"
        ):
            found = [alias.name for alias in node.names if alias.name in upstream]
            if found:
                upstream -= set(found)
                imports[f"from {node.module} import {', '.join(sorted(found))}"] = None
    if upstream:
        sys.exit(
            f"Expected every name of {DOOR} from torch_brain 0.2.\nFound others: {', '.join(sorted(upstream))}."
        )
    docstring = ast.get_docstring(trees[START])
    parts = [f'"""{docstring}"""', "\n".join(imports), *body]
    # torch's custom operators have a place of their own: a process may have both.
    return "\n\n\n".join(parts).replace(f"{PACKAGE}::", "torch_brain::") + "\n"


def main() -> None:
    path = Path(sys.argv[1])
    path.write_text(one_file(), encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run(
        [*ruff, "check", "-q", "--fix", "--select", "I,F401", "--isolated", path],
        check=True,
    )
    subprocess.run([*ruff, "format", "-q", "--isolated", path], check=True)
    print(f"{path}: {len(path.read_text(encoding='utf-8').splitlines())} lines")


if __name__ == "__main__":
    main()
