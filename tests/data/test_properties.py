"""Random recordings from arrays to a loss: what can be built is saved, valid, cut into windows and learnt from."""

import warnings

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurobridge_tb import NeuroBridgeModel
from neurobridge_tb._upstream import collate
from neurobridge_tb.data.activity import sampling_intervals
from neurobridge_tb.data.behavior import read_windows
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.validation.examination import find_faults
from neurobridge_tb.errors import InputError
from neurobridge_tb.masking import MaskedTokenizer

WINDOW = 1.0
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)  # other text is refused


@st.composite
def recordings(draw):
    """What is read, and arguments of build_recording: spikes, counts or MUA with gaps, at any time, in any areas."""
    modality = draw(st.sampled_from(["mua", "spike_counts", "spikes"]))
    n_units, rng = draw(st.integers(1, 7)), np.random.default_rng(draw(st.integers(0, 2**32)))
    width, start = draw(st.sampled_from([0.05, 0.1, 0.25])), draw(st.sampled_from([0.0, -3.5, 1.7e9, 12.3]))
    n_bins = round(8 / width)
    areas = draw(st.none() | st.lists(NAMES, min_size=n_units, max_size=n_units))
    units = {"id": [f"u{k}" for k in range(n_units)]} | ({} if areas is None else {"area": areas})
    arguments = {"units": units, "start": start, "simulated": True}
    if modality == "spikes":
        times = np.append(np.sort(rng.uniform(start, start + 8, draw(st.integers(60, 200)))), start + 8)
        arguments |= {"spikes": (times, rng.integers(0, n_units, len(times)))}
    elif modality == "spike_counts":
        arguments |= {"counts": (rng.poisson(draw(st.sampled_from([0.5, 20.0])), (n_bins, n_units)), width)}
    else:
        values = rng.normal(draw(st.sampled_from([0.0, 1e4])), 1.0, (n_bins, n_units)).astype(np.float32)
        values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = np.nan
        gap = draw(st.integers(0, n_bins // 3))
        values[gap : gap + draw(st.integers(0, n_bins // 4))] = np.nan
        arguments |= {"mua": (values, width)}
    cut = start + 6.0
    return modality, arguments | {"splits": {"train": ([start], [cut]), "valid": ([cut], [start + 8.0])}}


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(recordings())
def test_what_can_be_built_is_saved_is_valid_and_gives_a_finite_loss(tmp_path_factory, recording):
    modality, arguments = recording
    root = tmp_path_factory.mktemp("property")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # suspicious times and counts are pointed out
        data = build_recording(brainset_id="test", session_id="s", subject_id="x", **arguments)
        save_recording(data, root / "s.h5")
    assert [fault for fault in find_faults(root / "s.h5") if fault.is_error] == []
    dataset = BinnedRecordings(root)
    torch.manual_seed(0)
    sizes = dict(dim=16, depth=1, dim_head=8, cross_heads=1, self_heads=1, num_latents_per_step=2, num_factors=3)
    model = NeuroBridgeModel(modality=modality, sequence_length=WINDOW, latent_step=0.5, bin_size=0.1, **sizes)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    try:
        intervals = sampling_intervals(model, dataset, "train", windows="continuous")
        windows = read_windows(dataset, intervals, windows="continuous", window_length=WINDOW)
    except InputError as error:  # between the gaps no window is left, and that is said
        assert modality == "mua" and ("NaN throughout" in str(error) or "Found 0 in" in str(error))
        return
    tokenizer = MaskedTokenizer(model, {"temporal": 1.0, "neuron": 1.0, "random": 1.0})
    batch = collate([tokenizer(window) for window in windows])
    loss = model.masked_loss(model(**batch["model_inputs"]), batch)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
