"""A hook of MkDocs: docstrings name other code and link as Sphinx does, which torch_brain's own docs need."""

import re
from typing import Any

_ROLE = re.compile(r":(?:mod|meth|func|class|attr|data|obj|exc):<code>(~?)([^<]+)</code>")
_LINK = re.compile(r"<code>([^<]+?)\s*&lt;(https?://[^<]+?)&gt;</code>_")


def on_page_content(html: str, **_: Any) -> str:
    """``:func:`~a.b.c``` as code, ``c``; ```text <address>`_`` as a link."""
    html = _ROLE.sub(lambda role: f"<code>{role[2].rpartition('.')[2] if role[1] else role[2]}</code>", html)
    return _LINK.sub(r'<a href="\2">\1</a>', html)
