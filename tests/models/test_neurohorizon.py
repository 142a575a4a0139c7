"""NeuroHorizonModel: no leak from the future, roll-outs with and without cache, invariances, unseen units, faults."""

import numpy as np
import pytest
import torch

from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.datasets.reference_features import recording_features
from neurobridge_tb.errors import InputError
from neurobridge_tb.models.neurohorizon import NeuroHorizonModel
from neurobridge_tb.nn.forecasting.id_encoder import IDEncoder
from neurobridge_tb.nn.forecasting.per_neuron_head import PerNeuronHead
from neurobridge_tb.nn.forecasting.rate_filter import RECENT

ENCODER = dict(dim=32, depth=1, dim_head=16, dim_population=16, ffn_dropout=0.0, lin_dropout=0.0)
SETTINGS = dict(
    modality="spike_counts", history=0.5, horizon=0.4, bin_size=0.05, latent_step=0.125, num_latents_per_step=2,
    dim_feedback=16, dim_hidden=16, dim_identity=16, encoder=ENCODER,
)  # fmt: skip


def spread(model):
    """Parts that begin at or near zero take part in the tests too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(
                k in name for k in ("predicted", "gain_emb", "presence_rows", "head.out", "head.own", "head.shared")
            ):
                parameter.normal_(0, 0.3)
        if hasattr(model.unit_rows, "weight"):
            model.unit_rows.weight.normal_(0, 0.2)
    return model.eval()


def make_model(dataset, **settings):
    torch.manual_seed(0)
    model = NeuroHorizonModel(**(SETTINGS | settings))
    model.init_vocabs(dataset)
    intervals = dataset.get_sampling_intervals("train")
    features = None
    if model.identity is not None:
        features = {r: recording_features(dataset.get_recording(r), intervals[r]) for r in dataset.recording_ids}
    model.fit_units(dataset, intervals, features)
    return spread(model)


@pytest.fixture(scope="module")
def dataset(binned_root):
    return BinnedRecordings(root=binned_root)


@pytest.fixture(scope="module")
def event_dataset(tmp_path_factory):
    """Spikes of 6 units, 20 s; the sixth has none, and nothing fires from 10 to 12 s."""
    root = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(0)
    times = np.sort(np.concatenate([rng.uniform(0, 10, 600), rng.uniform(12, 20, 500)]))
    save_recording(
        build_recording(
            brainset_id="test", session_id="events", subject_id="subject", units={"id": [f"u{i}" for i in range(6)]},
            spikes=(times, rng.integers(0, 5, len(times))), end=20.0, splits={"train": ([0.0], [20.0])},
        ),
        root / "events.h5",
    )  # fmt: skip
    return BinnedRecordings(root=root)


@pytest.fixture(scope="module", params=["embedding", "features"])
def model(request, dataset):
    return make_model(dataset, unit_identity=request.param)


def window(dataset, recording="session0", start=2.0, length=0.9):
    return dataset[DatasetIndex(recording, start, start + length)]


def batch_of(model, *windows):
    return collate([model.tokenize_with_targets(w) for w in windows])


@torch.no_grad()
def forced(model, batch, **changes):
    future = changes.get("future", batch["target_values"])
    return model(future=future, future_mask=batch["target_mask"], **batch["model_inputs"])


def test_one_log_rate_a_future_bin_and_unit(model, dataset):
    batch = batch_of(model, window(dataset))
    assert forced(model, batch).shape == model.generate(**batch["model_inputs"]).shape == (1, 8, 16)


@pytest.mark.parametrize("k", [0, 3, 6])
def test_no_future_bin_leaks(model, dataset, k):
    """Changing the target from bin k on changes no output up to k, and every output after it."""
    batch = batch_of(model, window(dataset))
    changed = batch["target_values"].clone()
    changed[:, k:] += 3.0
    before, after = forced(model, batch), forced(model, batch, future=changed)
    torch.testing.assert_close(after[:, : k + 1], before[:, : k + 1], rtol=0, atol=0)
    assert (after[:, k + 1 :] - before[:, k + 1 :]).abs().amax(dim=(0, 2)).min() > 1e-4


def test_the_future_gets_no_gradient_from_earlier_outputs(model, dataset):
    batch = batch_of(model, window(dataset))
    future = batch["target_values"].clone().requires_grad_()
    model(future=future, future_mask=batch["target_mask"], **batch["model_inputs"])[:, 4].sum().backward()
    assert not future.grad[:, 4:].any() and future.grad[:, :4].any(dim=2).all()


def test_rolled_out_and_teacher_forced_differ_after_the_first_bin(model, dataset):
    batch = batch_of(model, window(dataset))
    rolled, teacher_forced = model.generate(**batch["model_inputs"]), forced(model, batch)
    torch.testing.assert_close(rolled[:, 0], teacher_forced[:, 0], rtol=1e-4, atol=1e-5)
    assert (rolled[:, 1:] - teacher_forced[:, 1:]).abs().max() > 1e-3


def test_teacher_forcing_with_its_own_predictions_is_rolling_out(model, dataset):
    batch = batch_of(model, window(dataset))
    rolled = model.generate(**batch["model_inputs"])
    observed = torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        as_rolled = model(future=rolled.exp(), future_mask=torch.ones_like(batch["target_mask"]), observed=observed,
                     **batch["model_inputs"])  # fmt: skip
    torch.testing.assert_close(as_rolled, rolled, rtol=1e-4, atol=1e-5)


def test_the_cache_changes_nothing_but_the_work(model, dataset, monkeypatch):
    batch = batch_of(model, window(dataset), window(dataset, "session1"))
    widths = []
    forward = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda x, *args: widths.append(x.shape[1]) or forward(x, *args))
    cached = model.generate(**batch["model_inputs"])
    assert widths == [1] * 8  # linear in the horizon
    torch.testing.assert_close(cached, model.generate(**batch["model_inputs"], use_cache=False), rtol=1e-4, atol=1e-5)


def test_a_longer_horizon_begins_as_a_shorter_one(model, dataset):
    inputs = batch_of(model, window(dataset))["model_inputs"]
    torch.testing.assert_close(model.generate(**inputs, horizon=0.2), model.generate(**inputs)[:, :4])
    assert model.generate(**inputs, horizon=1.0).shape == (1, 20, 16)
    with pytest.raises(InputError, match="whole number of bins"):
        model.generate(**inputs, horizon=0.17)


def test_unit_order_does_not_matter(model, dataset):
    order = np.random.default_rng(0).permutation(16)
    shuffled = window(dataset)
    shuffled.spike_counts.value = shuffled.spike_counts.value[:, order]
    shuffled.units.id = shuffled.units.id[order]
    a, b = batch_of(model, window(dataset)), batch_of(model, shuffled)
    torch.testing.assert_close(forced(model, b), forced(model, a)[:, :, order], rtol=1e-4, atol=1e-5)
    rolled = [model.generate(**x["model_inputs"]) for x in (a, b)]
    torch.testing.assert_close(rolled[1], rolled[0][:, :, order], rtol=1e-4, atol=1e-5)


def test_padding_and_batch_mates_do_not_matter(model, dataset):
    windows = [window(dataset, "session1"), window(dataset), window(dataset, "session1", start=7.0)]
    together = batch_of(model, *windows)
    for i, alone in enumerate(batch_of(model, w) for w in windows):
        n = alone["target_values"].shape[2]
        for run in (forced, lambda m, b: m.generate(**b["model_inputs"])):
            torch.testing.assert_close(run(model, together)[i, :, :n], run(model, alone)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modality", ["spike_counts", "spikes"])
def test_hidden_units_do_not_matter(dataset, event_dataset, modality):
    data = dataset if modality == "spike_counts" else event_dataset
    model = make_model(data, modality=modality)
    inputs = batch_of(model, window(data, data.recording_ids[0]))["model_inputs"]
    shown = torch.arange(inputs["unit_index"].shape[1])[None] % 2 == 0
    changed = inputs | {"past": torch.where(shown[:, None], inputs["past"], 9.0)}
    if modality == "spike_counts":
        changed["input_values"] = changed["past"]
    else:
        hidden = torch.isin(inputs["input_unit_index"], inputs["unit_index"][~shown])
        changed["input_timestamps"] = torch.where(hidden, 0.123, inputs["input_timestamps"])
    a, b = (model.generate(**model._show(x, shown)) for x in (inputs, changed))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert (a - model.generate(**inputs)).abs().max() > 1e-3


def test_bins_after_the_window_are_absent(model, dataset):
    batch = batch_of(model, window(dataset, length=0.7))
    assert batch["target_mask"][0].all(1).tolist() == [True] * 4 + [False] * 4
    whole = batch_of(model, window(dataset))
    torch.testing.assert_close(forced(model, batch)[:, :5], forced(model, whole)[:, :5], rtol=1e-4, atol=1e-5)


def test_events_are_forecast_as_counts(event_dataset):
    model = make_model(event_dataset, modality="spikes")
    sample = window(event_dataset, "events", start=2.0)
    batch = batch_of(model, sample, window(event_dataset, "events", start=10.5))
    edges = np.arange(19) * 0.05
    for unit in range(6):
        expected = np.histogram(sample.spikes.timestamps[sample.spikes.unit_index == unit], edges)[0]
        found = torch.cat([batch["model_inputs"]["past"], batch["target_values"]], 1)[0, :, unit]
        np.testing.assert_array_equal(found, expected)
    assert torch.isfinite(forced(model, batch)).all()  # the second window is silent
    assert torch.isfinite(model.generate(**batch["model_inputs"])).all()
    late = sample.spikes.timestamps[sample.spikes.timestamps >= 0.5]
    assert len(late) and batch["model_inputs"]["input_timestamps"].max() < 0.5
    assert model.training_loss(batch).isfinite()


@pytest.mark.parametrize("modality", ["spike_counts", "spikes"])
@pytest.mark.parametrize("identity", ["embedding", "features"])
def test_every_parameter_gets_a_gradient(dataset, event_dataset, modality, identity):
    data = dataset if modality == "spike_counts" else event_dataset
    model = make_model(data, modality=modality, unit_identity=identity).train()
    if model.modulation is not None:
        for fitted in (model.modulation.rows.weight, model.modulation.response):
            fitted.normal_(0, 0.1)
    batch = batch_of(model, *[window(data, data.recording_ids[0], start=s) for s in (1.0, 2.0, 3.0, 4.0)])
    shape = (4, len(RECENT), batch["target_values"].shape[2])
    batch["model_inputs"] |= {"recent_spikes": torch.rand(shape) * 9, "recent_bins": torch.ones(shape) * 9}
    model.training_loss(batch, generator=torch.Generator().manual_seed(3)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and not (p.grad is not None and p.grad.any())]
    assert not without


def test_unit_dropout_hides_pasts_but_asks_for_all_futures(dataset):
    model = make_model(dataset).train()
    batch = batch_of(model, *[window(dataset, start=s) for s in (1.0, 3.0, 5.0)])
    for share in (0.0, 1.0):
        inputs = batch["model_inputs"]
        inputs["past"], inputs["input_values"] = (inputs[k].detach().clone() for k in ("past", "input_values"))
        read = [inputs["past"].requires_grad_(), inputs["input_values"].requires_grad_()]
        batch["target_values"] = batch["target_values"].detach().clone().requires_grad_()
        model.training_loss(batch, unit_dropout=share, generator=torch.Generator().manual_seed(0)).backward()
        seen = torch.stack([x.grad.abs().sum(1) > 0 for x in read])  # (2, B, N)
        assert seen.all() if not share else torch.equal(*seen) and 0.2 < seen.float().mean() < 0.8
        assert (batch["target_values"].grad.abs().sum(1) > 0).all()


def test_a_share_of_the_training_windows_reads_its_own_predictions(model, dataset, monkeypatch):
    batch = batch_of(model, *[window(dataset, start=s) for s in (1.0, 3.0, 5.0, 7.0)])
    inputs, mask = batch["model_inputs"], batch["target_mask"]
    rolled = model.generate(**inputs).exp()
    observed = torch.rand(4, generator=torch.Generator().manual_seed(0)) >= 0.4
    assert observed.any() and not observed.all()
    for share, as_observed in (
        (0.0, torch.ones(4, dtype=torch.bool)),
        (0.4, observed),
        (1.0, torch.zeros(4, dtype=torch.bool)),
    ):
        monkeypatch.setattr("neurobridge_tb.models.neurohorizon.ROLLED_OUT", share)
        future = torch.where(as_observed[:, None, None], batch["target_values"], rolled)
        expected = model.loss(model(future=future, future_mask=mask, observed=as_observed, **inputs), batch)
        actual = model.training_loss(batch, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_it_learns_to_use_what_is_fed_back(dataset):
    """A bin that repeats the one before it is predicted well only when that one is observed."""
    model = make_model(dataset).train()
    batch = batch_of(model, *[window(dataset, start=s) for s in np.arange(0, 16, 1.0)])
    for key in ("past", "input_values"):
        batch["model_inputs"][key] = torch.zeros_like(batch["model_inputs"][key])
    pattern = torch.randint(0, 2, (16, 1, 16), generator=torch.Generator().manual_seed(0)) * 3.0
    batch["target_values"] = pattern.expand(-1, 8, -1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(
            model(future=batch["target_values"], future_mask=batch["target_mask"], **batch["model_inputs"]), batch
        )
        loss.backward()
        optimizer.step()
    model.eval()
    error = (forced(model, batch).exp() - batch["target_values"]).abs().mean(dim=(0, 2))
    assert error[1:].max() < 0.5 * error[0]


def test_units_that_were_never_trained_are_forecast_from_their_features(dataset, tmp_path):
    """Zero-shot: the same spikes under new unit ids, identified by their features, give the same forecast."""
    model = make_model(dataset, unit_identity="features")
    recording = dataset.get_recording("session1")
    stranger = build_recording(
        brainset_id="test", session_id="stranger", subject_id="other",
        units={"id": [f"stranger/{i}" for i in range(11)]}, counts=(recording.spike_counts.value, 0.05),
    )  # fmt: skip
    save_recording(stranger, tmp_path / "stranger.h5")
    strangers = BinnedRecordings(root=tmp_path)
    sample = window(strangers, "stranger")
    with pytest.raises(InputError, match="add_units"):
        model.tokenize_with_targets(sample)
    reference = dataset.get_sampling_intervals("train")["session1"]
    features, seconds = (
        recording_features(recording, reference),
        min(60.0, float((reference.end - reference.start).sum())),
    )
    known = batch_of(model, window(dataset, "session1"))
    before = model.generate(**known["model_inputs"])
    model.add_units([f"stranger/{i}" for i in range(11)], features, seconds=seconds)
    new = batch_of(model, sample)
    torch.testing.assert_close(model.generate(**new["model_inputs"]), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.generate(**known["model_inputs"]), before)
    model.add_units([f"stranger/{i}" for i in range(11)], features[::-1], seconds=seconds)
    assert (model.generate(**new["model_inputs"]) - before).abs().max() > 1e-3  # features decide


def test_a_model_without_features_refuses_new_units(dataset):
    with pytest.raises(InputError, match="unit_identity='features'"):
        make_model(dataset).add_units(["new"], np.zeros((1, 33)), seconds=60)
    model = NeuroHorizonModel(**(SETTINGS | {"unit_identity": "features"}))
    model.init_vocabs(dataset)
    with pytest.raises(InputError, match="reference features of every recording"):
        model.fit_units(dataset, dataset.get_sampling_intervals("train"))


@pytest.mark.parametrize("identity", ["embedding", "features"])
def test_an_untrained_model_forecasts_its_rate_filter(dataset, identity):
    model = make_model(dataset, unit_identity=identity)
    for parameter in model.head.parameters():
        torch.nn.init.zeros_(parameter)
    batch = batch_of(model, *[window(dataset, start=s) for s in (1.0, 3.0)])
    start = model.start(**batch["model_inputs"])
    torch.testing.assert_close(model.generate(**batch["model_inputs"]), start)
    torch.testing.assert_close(forced(model, batch), start)


def test_the_running_past_moves_the_forecast_towards_it(dataset):
    model = make_model(dataset)
    batch = batch_of(model, window(dataset))
    inputs = batch["model_inputs"]
    shape = (1, len(RECENT), inputs["past"].shape[2])
    still = model.start(**inputs)
    busy = model.start(**inputs, recent_spikes=torch.full(shape, 9e4), recent_bins=torch.full(shape, 300.0))
    quiet = model.start(**inputs, recent_spikes=torch.zeros(shape), recent_bins=torch.full(shape, 300.0))
    assert (busy > still).all() and (still > quiet).all()


def test_a_unit_without_spikes_gets_a_low_finite_rate(event_dataset):
    for identity in ("embedding", "features"):
        model = make_model(event_dataset, modality="spikes", unit_identity=identity)
        rates = model.generate(**batch_of(model, window(event_dataset, "events"))["model_inputs"]).exp()
        assert rates.isfinite().all() and rates[0, :, 5].max() < 0.1 * rates[0, :, :5].min()


def test_embeddings_computed_once_are_the_same(dataset):
    model = make_model(dataset, unit_identity="features")
    inputs = batch_of(model, window(dataset))["model_inputs"]
    fresh = model.generate(**inputs)
    model.identity.precompute()
    with torch.no_grad():
        model.identity.encoder.layers[0][0].weight.zero_()
    torch.testing.assert_close(model.generate(**inputs), fresh)
    model.eval()
    assert (model.generate(**inputs) - fresh).abs().max() > 1e-3


def test_id_encoder_standardises_and_keeps_units_apart():
    features = torch.rand(40, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 33)
    encoder = IDEncoder(24)
    encoder.fit(features)
    assert (encoder(features) - encoder(features)).abs().max() > 0.1  # noisy in training
    embeddings = encoder.eval()(features)
    assert embeddings.shape == (40, 24)
    torch.testing.assert_close(embeddings.mean(1), torch.zeros(40), atol=1e-5, rtol=0)  # LayerNorm
    assert torch.cdist(embeddings, embeddings).fill_diagonal_(9).min() > 0.1
    kinds = [type(m).__name__ for m in encoder.modules() if not list(m.children())]
    assert kinds == ["Linear", "GELU", "LayerNorm"] * 3
    constant = IDEncoder(8).eval()
    constant.fit(torch.ones(5, 33))
    assert constant(torch.ones(2, 33)).isfinite().all()


def test_the_head_gives_the_same_for_a_few_bins_at_a_time(monkeypatch):
    torch.manual_seed(0)
    head = PerNeuronHead(dim=8, dim_own=3, dim_drift=2, dim_hidden=5, dropout=0.0)
    states, units, own, drift = (torch.randn(*n) for n in ((2, 7, 8), (1, 4, 8), (2, 7, 4, 3), (2, 4, 2)))
    assert not head(states, units, own, head.of_units(units, drift)).any()  # a residual that starts at zero
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    outputs, gradients = [], []
    for at_once in (2**20, 1, 90):  # all bins, one, two
        monkeypatch.setattr("neurobridge_tb.nn.forecasting.per_neuron_head._AT_ONCE", at_once)
        head.zero_grad()
        outputs.append(head(states, units, own, head.of_units(units, drift)))
        (outputs[-1] ** 2).sum().backward()
        gradients.append([p.grad.clone() for p in head.parameters()])
        torch.testing.assert_close(outputs[-1], outputs[0])
        torch.testing.assert_close(gradients[-1], gradients[0])
    with torch.no_grad():
        torch.testing.assert_close(head(states, units, own, head.of_units(units, drift)), outputs[0])
    joint = head.norm(states)[:, :, None] @ head.from_state.weight.T + head.from_state.bias
    hidden = joint + units[:, None] @ head.from_unit.weight.T + own @ head.from_own.weight.T
    hidden = hidden + drift[:, None] @ head.from_drift.weight.T
    linear = head.shared * (head.norm(states) @ units.mT) + head.own(own)[..., 0]
    expected = head.out(torch.relu(hidden))[..., 0] + linear
    torch.testing.assert_close(outputs[0], expected)


@pytest.mark.parametrize("identity", ["embedding", "features"])
def test_saved_models_load_with_equal_outputs(dataset, tmp_path, identity):
    model = make_model(dataset, unit_identity=identity)
    model.save_pretrained(tmp_path / "model")
    loaded = NeuroHorizonModel.load_pretrained(tmp_path / "model").eval()
    inputs = batch_of(model, window(dataset))["model_inputs"]
    torch.testing.assert_close(loaded.generate(**inputs), model.generate(**inputs))


def test_faults_are_named(dataset, tmp_path):
    with pytest.raises(InputError, match=r"horizon of a whole number of bins(.|\n)*0\.4 s"):
        NeuroHorizonModel(**(SETTINGS | {"horizon": 0.42}))
    with pytest.raises(InputError, match="history of a whole number of bins"):
        NeuroHorizonModel(**(SETTINGS | {"history": 0.51}))
    with pytest.raises(InputError, match="modality"):
        NeuroHorizonModel(**(SETTINGS | {"modality": "mua"}))
    model = make_model(dataset)
    with pytest.raises(InputError, match=r"10 bins of 0.05 s of past(.|\n)*session0 at 59.800 s"):
        model.tokenize_with_targets(window(dataset, start=59.8, length=0.2))
    other = NeuroHorizonModel(**(SETTINGS | {"bin_size": 0.02}))
    other.init_vocabs(dataset)
    with pytest.raises(InputError, match=r"bins of 0.02 s, those of the model(.|\n)*bins of 0.05 s"):
        other.tokenize(window(dataset))
