"""What a fine-tuned model must beat at decoding behaviour: a GRU, and upstream's POYO, on the same windows.

Both have the interface of :class:`neurobridge_tb.models.BehaviorDecoder`: ``tokenize(window, keep)`` and
``forward(**inputs)`` -> (B, K, dim_out). They read windows as a NeuroBridgeModel does, which also gives them their
vocabularies and each unit's statistics.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import POYO, Data, Dataset, IrregularTimeSeries, pad, pad2d
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import NeuroBridgeModel
from neurobridge_tb.nn.unit_rows import rows_of


class GRUDecoder(nn.Module):
    """A causal GRU over the standardised bins of one recording, and a linear layer on its states.

    Args:
        reader: Reads the windows.
        dataset: Its one recording gives the units.
        dim_out: Width of the behaviour.
        dim: Width of the GRU's state. Default 128.
        dropout: Dropout of inputs and states. Default 0.2.
    """

    def __init__(
        self, reader: NeuroBridgeModel, dataset: Dataset, *, dim_out: int, dim: int = 128, dropout: float = 0.2
    ):
        super().__init__()
        if len(dataset.recording_ids) != 1:
            raise InputError(
                expected="one recording for the GRU baseline, whose inputs are that recording's units",
                found=f"{len(dataset.recording_ids)} recordings",
                fix="Set dataset.recording_ids=[ONE], or leave gru out of rows.",
            )
        self.read = reader.grid_values
        ids = dataset.get_recording(dataset.recording_ids[0]).units.id.astype(str).tolist()
        mean, std = reader.unit_stats(rows_of(reader.unit_stats, ids)).numpy().T
        self.mean, self.std = mean, std
        self.gru = nn.GRU(len(ids), dim, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(dim, dim_out)

    def tokenize(self, data: Data, keep: np.ndarray | None = None) -> dict[str, Any]:
        """Standardised values; those that are absent are 0, the mean."""
        values, times = self.read(data)
        values = np.nan_to_num((values - self.mean) / self.std)
        if keep is not None:
            values = values * keep
        return {
            "values": pad2d(torch.from_numpy(values.astype(np.float32))),
            "output_timestamps": pad(times.astype(np.float32)),
        }

    def forward(self, *, values: Tensor, output_timestamps: Tensor) -> Tensor:
        """(B, T, N) values to (B, T, dim_out)."""
        states, _ = self.gru(self.dropout(values))
        return self.readout(self.dropout(states))


class POYODecoder(nn.Module):
    """Upstream's POYO, of the same width and depth, reading spikes; a count k is k spikes in the middle of its bin.

    Args:
        reader: Reads the windows.
        dataset: Gives the vocabularies.
        dim_out: Width of the behaviour.
        num_latents_per_step: Latents at each step of 0.125 s. Default 16.
    """

    def __init__(self, reader: NeuroBridgeModel, dataset: Dataset, *, dim_out: int, num_latents_per_step: int = 16):
        super().__init__()
        if POYO is None:
            raise InputError(
                expected="torch_brain 0.2 for the POYO baseline",
                found="the older line, whose POYO has other inputs",
                fix="Leave poyo out of rows, or install torch_brain>=0.2.",
            )
        self.read = reader.grid_values
        shape = {k: reader.config[k] for k in ("dim", "depth", "dim_head", "cross_heads", "self_heads")}
        self.poyo = POYO(
            sequence_length=reader.sequence_length,
            latent_step=0.125,
            num_latents_per_step=num_latents_per_step,
            dim_out=dim_out,
            **shape,
        )
        self.poyo.unit_emb.initialize_vocab(dataset.get_unit_ids())
        self.poyo.session_emb.initialize_vocab(dataset.recording_ids)

    def tokenize(self, data: Data, keep: np.ndarray | None = None) -> dict[str, Any]:
        """POYO's own tokens."""
        counts, times = self.read(data)
        if keep is not None:
            counts = counts * keep
        bins, units = np.nonzero(np.nan_to_num(counts))
        repeats = counts[bins, units].astype(int)
        middles = times + (times[1] - times[0]) / 2
        spikes = IrregularTimeSeries(
            timestamps=np.repeat(middles[bins], repeats),
            unit_index=np.repeat(units, repeats),
            domain="auto",
        )
        window = Data(units=data.units, session=data.session, spikes=spikes, domain=spikes.domain)
        tokens = {name: _single(value) for name, value in self.poyo.tokenize(window).items()}
        return tokens | {"output_timestamps": pad(times.astype(np.float32))}

    def forward(self, **inputs: Tensor) -> Tensor:
        """(B, K, dim_out)."""
        return self.poyo(**inputs)


def _single(value: Any) -> Any:
    """Times in float32, as not every device has float64; ``pad`` and the like stay around them."""
    content = getattr(value, "obj", value)
    if not isinstance(content, np.ndarray) or content.dtype != np.float64:
        return value
    content = content.astype(np.float32)
    return value._replace(obj=content) if hasattr(value, "obj") else content
