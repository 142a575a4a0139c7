"""Embeddings of images on disk, so that an image encoder runs once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from neurobridge_tb.alignment.layers import FINAL
from neurobridge_tb.alignment.source import describe_source, same_source
from neurobridge_tb.errors import InputError, remedy
from neurobridge_tb.files import check_replaceable, write_aside

_VERSION = 2


class EmbeddingCache:
    """Embeddings of one or several layers by image id, with the encoder that made them.

    On disk: HDF5 with ``ids`` (n,) UTF-8 and a group ``layers`` of float32 (n, d), one a layer; attributes ``encoder``,
    ``preprocessing_hash``, ``layers`` (their order) and ``version``. Files of version 1 hold one data set
    ``embeddings``, the final layer.

    Args:
        ids: Image ids, each once.
        embeddings: ``(n, d)`` from any source, or such an array for each layer's name.
        encoder: Name of the encoder, or whatever names the embeddings' source.
        preprocessing_hash: The encoder's preprocessing; empty where there is none to tell.

    Attributes:
        embeddings: ``(n, dim)``, all layers side by side.
        layers: Width of each layer, in that order.

    Raises:
        InputError: Ids twice, another number of rows than ids, or values that are not finite.
    """

    def __init__(
        self,
        ids: Sequence[str],
        embeddings: np.ndarray | Tensor | Mapping[str, np.ndarray | Tensor],
        *,
        encoder: str,
        preprocessing_hash: str = "",
    ):
        of_layers = embeddings if isinstance(embeddings, Mapping) else {FINAL: embeddings}
        parts = {name: torch.as_tensor(part).to(torch.float32) for name, part in of_layers.items()}
        for name, part in parts.items():
            if part.ndim != 2 or len(part) != len(ids):
                raise InputError(
                    expected=f"embeddings of shape ({len(ids)}, d), a row an id",
                    found=f"shape {tuple(part.shape)} of layer {name}",
                    fix="Give one embedding for each image id.",
                )
            if not torch.isfinite(part).all():
                raise InputError(
                    expected="finite embeddings",
                    found=f"{int((~torch.isfinite(part).all(1)).sum())} rows with NaN or infinity in layer {name}",
                    fix="Check the encoder and the images of these rows.",
                )
        self._rows = {id_: row for row, id_ in enumerate(ids)}
        if len(self._rows) != len(ids):
            twice = sorted(id_ for id_, count in Counter(ids).items() if count > 1)
            raise InputError(
                expected="each image id once",
                found=f"{len(twice)} ids twice, e.g. {twice[0]!r}",
                fix="Leave repeats out; lookup() may name an id as often as it likes.",
            )
        self.embeddings = next(iter(parts.values())) if len(parts) == 1 else torch.cat(list(parts.values()), 1)
        self.layers = {name: part.shape[1] for name, part in parts.items()}
        self.encoder, self.preprocessing_hash = encoder, preprocessing_hash

    @property
    def ids(self) -> list[str]:
        """Image ids, in row order."""
        return list(self._rows)

    @property
    def dim(self) -> int:
        """Size of an embedding: the sum of the layers' widths."""
        return self.embeddings.shape[1]

    def columns(self, layer: str) -> slice:
        """Where a layer lies in an embedding.

        Raises:
            InputError: The cache has no such layer.
        """
        _check_layers([layer], self.layers, "this cache")
        start = 0
        for name, width in self.layers.items():
            if name == layer:
                break
            start += width
        return slice(start, start + self.layers[layer])

    def lookup(self, ids: Sequence[str]) -> Tensor:
        """Embeddings ``(len(ids), dim)`` of the named images, in that order.

        Raises:
            InputError: Ids that the cache does not hold.
        """
        missing = sorted({str(id_) for id_ in ids if id_ not in self._rows})
        if missing:
            raise InputError(
                expected=f"image ids among the {len(self._rows)} of this cache",
                found=f"{len(missing)} others: {', '.join(missing[:5])}",
                fix="Embed these images too, or leave their presentations out.",
            )
        return self.embeddings[[self._rows[id_] for id_ in ids]]

    def save(self, path: str | Path) -> None:
        """Write the cache, aside and renamed.

        Raises:
            InputError: See :func:`check_cache_place`.
        """
        check_cache_place(path)
        with write_aside(path) as aside, h5py.File(aside, "w") as file:
            file.create_dataset("ids", data=self.ids, dtype=h5py.string_dtype())
            for layer in self.layers:
                file.create_dataset(f"layers/{layer}", data=self.embeddings[:, self.columns(layer)].numpy())
            file.attrs["encoder"] = self.encoder
            file.attrs["preprocessing_hash"] = self.preprocessing_hash
            file.attrs["layers"] = list(self.layers)
            file.attrs["version"] = _VERSION

    @classmethod
    def load(
        cls,
        path: str | Path,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        layers: Sequence[str] | None = None,
    ) -> "EmbeddingCache":
        """Read a cache.

        Args:
            path: The HDF5 file.
            encoder_name: The encoder in use; a cache of another one is refused.
            preprocessing_hash: Its preprocessing; a cache made with another one is refused.
            layers: Layers to read, in this order. Default: all.

        Raises:
            InputError: No such file, not a cache, made by another encoder, or without these layers.
        """
        try:
            with h5py.File(path) as file:
                version = int(file.attrs["version"])
                if version not in (1, _VERSION):
                    raise ValueError(f"version {version}")
                sets = {FINAL: "embeddings"} if version == 1 else {n: f"layers/{n}" for n in file.attrs["layers"]}
                made_by = str(file.attrs["encoder"]), str(file.attrs["preprocessing_hash"])
                _check_source(path, (encoder_name, preprocessing_hash), made_by)
                _check_layers(layers or (), sets, str(path))
                ids = file["ids"].asstr()[:].tolist()
                embeddings = {name: file[sets[name]][:] for name in layers or sets}
                if unlike := [name for name, values in embeddings.items() if values.dtype.kind not in "fiu"]:
                    raise ValueError(f"no numbers in layers {', '.join(unlike)}")
        except InputError:
            raise
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise InputError(
                expected=f"an embedding cache (version {_VERSION})",
                found=f"{path}: {error}",
                fix=remedy(error, "Make it anew with 'neurobridge embed'."),
            ) from error
        return cls(ids, embeddings, encoder=made_by[0], preprocessing_hash=made_by[1])


def check_cache_place(path: str | Path) -> None:
    """Refuse to replace anything but a cache. Call it before anything heavy.

    Raises:
        InputError: Another file, or a folder, is at ``path``.
    """
    check_replaceable(path, _is_cache, "an embedding cache")


def _is_cache(path: Path) -> bool:
    with h5py.File(path) as file:
        return "preprocessing_hash" in file.attrs


def _check_source(path: str | Path, wanted: tuple[str | None, str | None], made_by: tuple[str, str]) -> None:
    if not same_source(wanted, made_by):
        raise InputError(
            expected=f"embeddings of {describe_source(wanted[0] or made_by[0], wanted[1] or made_by[1])}",
            found=f"those of {describe_source(*made_by)} in {path}",
            fix="Embed the images with the encoder and the image size in use, or align again with these embeddings.",
        )


def _check_layers(wanted: Iterable[str], held: Iterable[str], place: str) -> None:
    missing = [layer for layer in wanted if layer not in held]
    if missing:
        near = get_close_matches(missing[0], list(held), n=3, cutoff=0.0)
        raise InputError(
            expected=f"layers among {', '.join(held)}, which {place} holds",
            found=", ".join(missing),
            fix=f"Nearest: {', '.join(near)}. Or embed the images anew with other layers=[…].",
        )
