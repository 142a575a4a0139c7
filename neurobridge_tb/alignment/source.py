"""Which encoder made an embedding, with which preprocessing: compared, and put into words."""


def same_source(a: tuple[str | None, str | None], b: tuple[str | None, str | None]) -> bool:
    """Whether two pairs of encoder name and preprocessing agree wherever both tell.

    A preprocessing is ``"<size>px-<hash>"``, or the hash alone in older files.
    """
    pairs = zip((a[0], (a[1] or "").rpartition("-")[2]), (b[0], (b[1] or "").rpartition("-")[2]), strict=True)
    return all(x == y or not x or not y for x, y in pairs)


def describe_source(encoder: str | None, preprocessing: str | None) -> str:
    """``"timm:resnet18 at 128 px (preprocessing 0123abcd)"``."""
    size, _, recipe = (preprocessing or "").rpartition("-")
    where = f" at {size.removesuffix('px')} px" if size else ""
    return f"{encoder or 'an unknown encoder'}{where}" + (f" (preprocessing {recipe})" if recipe else "")
