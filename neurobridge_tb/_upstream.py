"""The one door to torch_brain: the only file that knows which upstream line is installed.

On torch_brain 0.2 the data objects, datasets and samplers live in ``torch_brain``; on the older line (0.1.2) the
data objects live in ``temporaldata`` and the rest under other names. Everything else in this package imports from here.
"""

try:  # torch_brain 0.2.x
    from torch_brain.batching import (
        chain,
        collate,
        pad,
        pad2d,
        pad8,
        track_mask,
        track_mask2d,
        track_mask8,
    )
    from torch_brain.data import (
        ArrayDict,
        BrainsetDescription,
        Data,
        DeviceDescription,
        Interval,
        IrregularTimeSeries,
        RegularTimeSeries,
        SessionDescription,
        SubjectDescription,
    )
    from torch_brain.datasets import Dataset, DatasetIndex, SpikingDatasetMixin
    from torch_brain.datasets._utils import get_processed_dir
    from torch_brain.models.poyo import POYO, FeedForward, create_linspace_latent_tokens
    from torch_brain.samplers import (
        DistributedEvaluationSamplerWrapper,
        RandomFixedWindowSampler,
        SequentialFixedWindowSampler,
        TrialSampler,
    )

    UPSTREAM_LINE = "0.2"
except ImportError:  # torch_brain 0.1.2 with temporaldata and brainsets
    from brainsets.descriptions import (
        BrainsetDescription,
        DeviceDescription,
        SessionDescription,
        SubjectDescription,
    )
    from temporaldata import ArrayDict, Data, Interval, IrregularTimeSeries, RegularTimeSeries
    from torch_brain.data import (
        chain,
        collate,
        pad,
        pad2d,
        pad8,
        track_mask,
        track_mask2d,
        track_mask8,
    )
    from torch_brain.data.sampler import (
        DistributedEvaluationSamplerWrapper,
        RandomFixedWindowSampler,
        SequentialFixedWindowSampler,
        TrialSampler,
    )
    from torch_brain.dataset import Dataset, DatasetIndex, SpikingDatasetMixin
    from torch_brain.nn import FeedForward
    from torch_brain.utils import create_linspace_latent_tokens

    POYO = None  # the older line's POYO has other inputs
    UPSTREAM_LINE = "0.1"

    def get_processed_dir() -> str:
        """``processed_dir`` of the brainsets config. Imported when it is called: it brings ray and pynwb along."""
        from brainsets.datasets._utils import get_processed_dir

        return get_processed_dir()


from torch_brain.nn import (
    InfiniteVocabEmbedding,
    RotaryCrossAttention,
    RotarySelfAttention,
    RotaryTimeEmbedding,
)

__all__ = [
    "POYO",
    "UPSTREAM_LINE",
    "ArrayDict",
    "BrainsetDescription",
    "Data",
    "Dataset",
    "DatasetIndex",
    "DeviceDescription",
    "DistributedEvaluationSamplerWrapper",
    "FeedForward",
    "InfiniteVocabEmbedding",
    "Interval",
    "IrregularTimeSeries",
    "RandomFixedWindowSampler",
    "RegularTimeSeries",
    "RotaryCrossAttention",
    "RotarySelfAttention",
    "RotaryTimeEmbedding",
    "SequentialFixedWindowSampler",
    "SessionDescription",
    "SpikingDatasetMixin",
    "SubjectDescription",
    "TrialSampler",
    "chain",
    "collate",
    "create_linspace_latent_tokens",
    "get_processed_dir",
    "pad",
    "pad2d",
    "pad8",
    "track_mask",
    "track_mask2d",
    "track_mask8",
]
