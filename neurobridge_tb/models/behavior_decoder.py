"""BehaviorDecoder: a continuous behaviour from neural activity, on a NeuroBridgeModel."""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurobridge_tb._upstream import Data, Dataset, pad
from neurobridge_tb.masking.schemes import Mask
from neurobridge_tb.models.neurobridge import NeuroBridgeModel
from neurobridge_tb.models.pretrained import PretrainedModel


class BehaviorDecoder(PretrainedModel):
    """A :class:`NeuroBridgeModel` whose bin states and factors are read by a linear layer.

    They are the pretrained model's view of the population at a time (:meth:`NeuroBridgeModel.bin_features`), so all but
    the last layer can be pretrained. A velocity is read from how they change: the layer sees the neighbouring bins too.

    Args:
        encoder: Config of the :class:`NeuroBridgeModel`.
        dim_out: Width of the behaviour, e.g. 2 for a planar velocity.
        bins_around: Bins before, and after, whose states are read too; at a window's ends its first or last bin stands
            for those beyond. Default 2.
    """

    def __init__(self, *, encoder: dict[str, Any], dim_out: int, bins_around: int = 2):
        super().__init__()
        arguments = inspect.signature(BehaviorDecoder.__init__).parameters
        self.config = {k: v for k, v in locals().items() if k in arguments and k != "self"}
        self.encoder = NeuroBridgeModel(**encoder)
        self.bins_around = bins_around
        self.readout = nn.Linear((2 * bins_around + 1) * self.encoder.dim_features, dim_out)
        self.register_load_state_dict_pre_hook(_without_factors)

    def init_vocabs(self, dataset: Dataset) -> None:
        """See :meth:`NeuroBridgeModel.init_vocabs`."""
        self.encoder.init_vocabs(dataset)

    def tokenize(self, data: Data, keep: np.ndarray | None = None) -> dict[str, Any]:
        """Keywords of :meth:`forward` for a window: the behaviour is predicted in every bin.

        Args:
            data: A window of a recording.
            keep: (N,) units that are seen. Default, and where these have no value in the window: all.
        """
        n_bins, areas = self.encoder.window_grid(data)
        absent = self.encoder.absent(data)
        hides_all = keep is not None and absent is not None and absent[:, keep].all()
        seen = np.ones(len(areas), dtype=bool) if keep is None or hides_all else keep
        nothing = np.zeros((n_bins, len(areas)), dtype=bool)
        sample = self.encoder.tokenize_with_targets(data, Mask("none", np.broadcast_to(seen, nothing.shape), nothing))
        times = torch.from_numpy(self.encoder.bin_times(data).astype(np.float32))
        return {k: v for k, v in sample["model_inputs"].items() if not k.startswith("output_")} | {
            "output_timestamps": pad(times)
        }

    def forward(self, **inputs: Any) -> Tensor:
        """Standardised behaviour (B, K, dim_out) at each time; the keywords are those of :meth:`states`."""
        return self.readout(self.states(**inputs))

    def states(self, *, session_index: Tensor, output_timestamps: Tensor, **inputs: Any) -> Tensor:
        """Bin states and factors (B, K, (2 * bins_around + 1) * dim_features) at and around each time.

        Args:
            session_index: (B,).
            output_timestamps: (B, K) in s, evenly spaced from the first; 0 where padded.
            **inputs: As :meth:`NeuroBridgeModel.encode` takes them.
        """
        first, last = output_timestamps[:, :1, None], output_timestamps.amax(1)[:, None, None]
        width = output_timestamps[:, 1:2, None] - first if output_timestamps.shape[1] > 1 else 0 * first
        offsets = torch.arange(-self.bins_around, self.bins_around + 1, device=first.device)
        around = (output_timestamps[..., None] + width * offsets).clamp(first, last)  # (B, K, 2 * bins_around + 1)
        features = self.encoder.bin_features(session_index=session_index, output_timestamps=around.flatten(1), **inputs)
        return features.view(*output_timestamps.shape, -1)


def _without_factors(decoder: BehaviorDecoder, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Decoders that read bin states alone do so still."""
    name, places = f"{prefix}readout.weight", 2 * decoder.bins_around + 1
    if name in state and state[name].shape[1] == places * decoder.encoder.dim != decoder.readout.in_features:
        of_states = state[name].unflatten(1, (places, -1))
        more = decoder.encoder.dim_features - decoder.encoder.dim
        state[name] = nn.functional.pad(of_states, (0, more)).flatten(1)
