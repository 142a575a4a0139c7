"""The faster rotation of ``neurobridge_tb.nn.rotary``, as upstream's ``RotaryTimeEmbedding.rotate``."""

import ast
import textwrap
from pathlib import Path

from sources import function_of, lay_test, replace_once

# The first line of upstream's method after its docstring; what follows stays, for torch.compile.
ANCHOR = "        rotary_emb = rotary_emb.unsqueeze(unsqueeze_dim)  # (..., H*2) -> (..., 1, H*2)\n"


class ToUpstream(ast.NodeTransformer):
    """Ours takes the embedding already unsqueezed, under another name, and can rotate back."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if node.id == "rotary":
            node.id = "rotary_emb"
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        return node.orelse if getattr(node.test, "id", None) == "inverse" else node


def fast_statements() -> str:
    """What our ``rotate`` does where nothing is compiled, in upstream's names."""
    ours = function_of("neurobridge_tb/nn/rotary.py", "rotate")
    compiled = next(i for i, node in enumerate(ours.body) if isinstance(node, ast.If))
    return "\n".join(
        ast.unparse(ToUpstream().visit(node)) for node in ours.body[compiled + 1 :]
    )


def lay(upstream: Path) -> tuple[list[Path], list[Path]]:
    """Returns the changed files, and the tests to run."""
    path = upstream / "torch_brain" / "nn" / "position_embeddings.py"
    head = "if not torch.compiler.is_compiling():\n"
    head += "    # One product of complex numbers is one pass over memory. The plain formula\n"
    head += "    # below is a dozen, which a compiler fuses.\n"
    added = textwrap.indent(
        head + textwrap.indent(fast_statements(), "    "), "        "
    )
    replace_once(path, ANCHOR, f"{ANCHOR}{added}\n")
    test = lay_test(upstream, "test_rotary_rotation.py", "tests")
    return [path, test], [
        test,
        upstream / "tests" / "test_rotary_attention.py",
        upstream / "tests" / "test_poyo.py",
    ]
