"""Embeddings of images on disk, so that an image encoder runs once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from neurobridge_tb.alignment.encoders import ImageEncoder, Images
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside

_VERSION = 1


class EmbeddingCache:
    """Embeddings by image id, with the encoder that made them.

    On disk: HDF5 with ``ids`` (n,) UTF-8 and ``embeddings`` float32 (n, d); attributes ``encoder``,
    ``preprocessing_hash`` and ``version``.

    Args:
        ids: Image ids, each once.
        embeddings: ``(n, d)``, from any source.
        encoder: Name of the encoder, or whatever names the embeddings' source.
        preprocessing_hash: The encoder's preprocessing; empty where there is none to tell.

    Raises:
        InputError: Ids twice, another number of rows than ids, or values that are not finite.
    """

    def __init__(
        self,
        ids: Sequence[str],
        embeddings: np.ndarray | Tensor,
        *,
        encoder: str,
        preprocessing_hash: str = "",
    ):
        values = torch.as_tensor(embeddings).to(torch.float32)
        if values.ndim != 2 or len(values) != len(ids):
            raise InputError(
                expected=f"embeddings of shape ({len(ids)}, d), a row an id",
                found=f"shape {tuple(values.shape)}",
                fix="Give one embedding for each image id.",
            )
        self._rows = {id_: row for row, id_ in enumerate(ids)}
        if len(self._rows) != len(ids):
            twice = sorted({id_ for id_ in ids if list(ids).count(id_) > 1})
            raise InputError(
                expected="each image id once",
                found=f"{len(twice)} ids twice, e.g. {twice[0]!r}",
                fix="Leave repeats out; lookup() may name an id as often as it likes.",
            )
        if not torch.isfinite(values).all():
            raise InputError(
                expected="finite embeddings",
                found=f"{int((~torch.isfinite(values).all(1)).sum())} rows with NaN or infinity",
                fix="Check the encoder and the images of these rows.",
            )
        self.embeddings = values
        self.encoder, self.preprocessing_hash = encoder, preprocessing_hash

    @property
    def ids(self) -> list[str]:
        """Image ids, in row order."""
        return list(self._rows)

    @property
    def dim(self) -> int:
        """Size of an embedding."""
        return self.embeddings.shape[1]

    def lookup(self, ids: Sequence[str]) -> Tensor:
        """Embeddings ``(len(ids), d)`` of the named images, in that order.

        Raises:
            InputError: Ids that the cache does not hold.
        """
        missing = sorted({str(id_) for id_ in ids if id_ not in self._rows})
        if missing:
            raise InputError(
                expected=f"image ids among the {len(self._rows)} of this cache",
                found=f"{len(missing)} others: {', '.join(missing[:5])}",
                fix="Encode these images too, or leave their presentations out.",
            )
        return self.embeddings[[self._rows[id_] for id_ in ids]]

    def save(self, path: str | Path) -> None:
        """Write the cache, aside and renamed."""
        with write_aside(path) as aside, h5py.File(aside, "w") as file:
            file.create_dataset("ids", data=self.ids, dtype=h5py.string_dtype())
            file.create_dataset("embeddings", data=self.embeddings.numpy())
            file.attrs["encoder"] = self.encoder
            file.attrs["preprocessing_hash"] = self.preprocessing_hash
            file.attrs["version"] = _VERSION

    @classmethod
    def load(
        cls,
        path: str | Path,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
    ) -> "EmbeddingCache":
        """Read a cache.

        Args:
            path: The HDF5 file.
            encoder_name: The encoder in use; a cache of another one is refused.
            preprocessing_hash: Its preprocessing; a cache made with another one is refused.

        Raises:
            InputError: No such file, not a cache, or made by another encoder.
        """
        try:
            with h5py.File(path) as file:
                version = int(file.attrs["version"])
                if version != _VERSION:
                    raise ValueError(f"version {version}")
                ids = file["ids"].asstr()[:].tolist()
                embeddings = file["embeddings"][:]
                made_by = str(file.attrs["encoder"]), str(file.attrs["preprocessing_hash"])
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                expected=f"an embedding cache (version {_VERSION})",
                found=f"{path}: {error}",
                fix="Make it anew with 'neurobridge embed'.",
            ) from error
        wanted = (encoder_name, preprocessing_hash)
        if any(w is not None and w != m for w, m in zip(wanted, made_by, strict=True)):
            raise InputError(
                expected=f"embeddings of the encoder {encoder_name or made_by[0]} "
                f"(preprocessing {preprocessing_hash or made_by[1]})",
                found=f"those of {made_by[0]} (preprocessing {made_by[1]}) in {path}",
                fix="Embed the images with the encoder in use, or set the encoder that made them.",
            )
        return cls(ids, embeddings, encoder=made_by[0], preprocessing_hash=made_by[1])

    @classmethod
    def from_images(
        cls,
        ids: Sequence[str],
        images: Images,
        encoder: ImageEncoder,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> "EmbeddingCache":
        """Encode images; see :meth:`ImageEncoder.encode` for ``images`` and ``progress``."""
        return cls(
            ids,
            encoder.encode(images, progress=progress),
            encoder=encoder.name,
            preprocessing_hash=encoder.preprocessing_hash,
        )
