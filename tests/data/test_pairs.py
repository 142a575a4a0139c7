"""Presentations as arrays: batches of pairs, hidden areas and times, bad input, and the closed-form start."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.parts import PairsConfig
from neurobridge_tb.data import responses as responses_module
from neurobridge_tb.data.pairs import PairBatches
from neurobridge_tb.data.responses import (
    check_test_images,
    collect_responses,
    embed_responses,
    pair_splits,
    shared_test_images,
)
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.engine.starts.factor_start import start_from_factor_analysis
from neurobridge_tb.engine.starts.linear_start import fit_linear_path
from neurobridge_tb.errors import InputError
from neurobridge_tb.estimators.ridge import fit_ridge
from neurobridge_tb.models import ImageAligner, NeuroBridgeModel

BINS, WINDOW, DIM = 4, 0.2, 5
SHOWN = {"train": 60, "valid": 20, "test": 10}
IDS = [f"c{i % 10}/{i}.jpg" for i in range(70)] + [f"c{i}/t{i}.jpg" for i in range(2) for _ in range(10)]


def save(root, name, n_units, seed, nan_at=None, presentations=None, train_ends=None):
    """90 presentations of 0.2 s in 4 bins; units respond linearly to the image's embedding, in the later two bins."""
    from neurobridge_tb._upstream import Interval

    rng = np.random.default_rng(seed)
    drive = embeddings().lookup(IDS).numpy() @ rng.normal(size=(DIM, n_units))
    values = rng.normal(size=(90, BINS, n_units)) * 0.5
    values[:, 2:] += drive[:, None]
    if nan_at is not None:
        values[nan_at] = np.nan
    starts = WINDOW * np.arange(90)
    edges = np.cumsum([0, *SHOWN.values()])
    data = build_recording(
        brainset_id="test",
        session_id=name,
        subject_id="s",
        units={"id": [f"{name}/u{i}" for i in range(n_units)], "area": ["V1", "IT"] * (n_units // 2)},
        mua=(values.reshape(-1, n_units).astype(np.float32), WINDOW / BINS),
        splits={s: (starts[a:b], starts[a:b] + WINDOW) for s, a, b in zip(SHOWN, edges[:-1], edges[1:], strict=True)}
        | ({} if train_ends is None else {"train": (starts[:60], train_ends)}),
        simulated=True,
    )
    data.presentations = presentations or Interval(
        start=starts,
        end=starts + WINDOW / 2,
        image_id=np.array(IDS),
        repeat=np.zeros(90, int),
        timekeys=["start", "end"],
    )
    save_recording(data, root / f"{name}.h5")


def embeddings():
    ids = list(dict.fromkeys(IDS))
    return EmbeddingCache(ids, np.random.default_rng(9).normal(size=(len(ids), DIM)) * [1, 1, 2, 2, 3] + 1, encoder="e")


def encoder_of(dataset):
    torch.manual_seed(0)
    sizes = dict(dim=16, depth=1, dim_head=8, cross_heads=1, self_heads=1, num_factors=8, num_latents_per_step=2)
    encoder = NeuroBridgeModel(modality="mua", sequence_length=WINDOW, latent_step=WINDOW / 2, **sizes)
    encoder.init_vocabs(dataset)
    encoder.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    start_from_factor_analysis(encoder, dataset, dataset.get_sampling_intervals("train"))
    return encoder.eval()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    save(root, "a", 8, seed=0)
    save(root, "b", 12, seed=1)
    return BinnedRecordings(root)


@pytest.fixture(scope="module")
def encoder(dataset):
    return encoder_of(dataset)


@pytest.fixture(scope="module")
def recordings(dataset, encoder):
    splits = ("train", "valid", "test")
    return {s: [collect_responses(dataset, encoder, r, s) for r in dataset.recording_ids] for s in splits}


def test_a_batch_is_of_one_recording_and_pairs_fit(recordings):
    train, cache = PairBatches(recordings["train"], embeddings(), batch_size=16, shuffle=True, seed=3), embeddings()
    batches = list(train)
    assert len(batches) == len(train) == 6  # three of each recording; the incomplete fourth is left out
    for batch in batches:
        inputs = batch["model_inputs"]
        k = 0 if inputs["input_values"].shape[2] == 8 else 1
        assert torch.equal(batch["target"], cache.lookup(batch["image_id"]))
        rows = [recordings["train"][k].image_ids.tolist().index(id_) for id_ in batch["image_id"]]
        np.testing.assert_array_equal(inputs["input_values"], recordings["train"][k].values[rows])


def test_order_is_a_function_of_seed_and_epoch_and_processes_share(recordings):
    def order(epoch, replicas=1, rank=0, batch_size=16):
        train = PairBatches(recordings["train"], embeddings(), batch_size=batch_size, shuffle=True, seed=3)
        train.epoch, train.num_replicas, train.rank = epoch, replicas, rank
        return [batch["image_id"] for batch in train]

    assert order(1) == order(1) != order(2)
    whole = order(1, batch_size=32)
    assert order(1, 2, 0) == [ids[::2] for ids in whole] and order(1, 2, 1) == [ids[1::2] for ids in whole]


def test_validation_pairs_keep_their_order_and_a_last_batch_of_one_is_left_out(recordings):
    ids = [b["image_id"] for b in PairBatches(recordings["valid"][:1], embeddings(), batch_size=19)]
    assert ids == [recordings["valid"][0].image_ids[:19].tolist()]


def test_a_batch_size_of_one_and_a_missing_image_are_refused(recordings):
    with pytest.raises(InputError, match="batch_size of two or more"):
        PairBatches(recordings["train"], embeddings(), batch_size=1)
    cache = embeddings()
    fewer = EmbeddingCache(cache.ids[1:], cache.embeddings[1:], encoder="e")
    with pytest.raises(InputError, match=cache.ids[0]):
        PairBatches(recordings["train"], fewer, batch_size=8)


@pytest.mark.parametrize("block", [10**9, 1])
def test_presentations_without_any_value_are_left_out_and_counted(tmp_path, capsys, monkeypatch, block):
    monkeypatch.setattr(responses_module, "_BLOCK", block)
    save(tmp_path, "a", 8, seed=0, nan_at=[0, 7, 89])
    dataset = BinnedRecordings(tmp_path)
    encoder = encoder_of(dataset)
    train, test = (collect_responses(dataset, encoder, "a", split) for split in ("train", "test"))
    assert train.image_ids.tolist() == [IDS[k] for k in range(60) if k not in (0, 7)] and len(test.values) == 9
    assert not np.isnan(train.values).any()
    assert "2 of 60 presentations in 'train' of a have no value, and are left out" in capsys.readouterr().out


def test_presentations_that_are_rejected_throughout_are_an_error(tmp_path):
    save(tmp_path, "a", 8, seed=0, nan_at=slice(60, 80))
    dataset = BinnedRecordings(tmp_path)
    with pytest.raises(InputError, match="images in 'valid' of a[\\s\\S]*NaN throughout"):
        collect_responses(dataset, encoder_of(dataset), "a", "valid")


def test_blank_presentations_are_no_pairs_and_repeats_are_counted_where_no_column_does(tmp_path):
    from neurobridge_tb._upstream import Interval

    starts, ids = WINDOW * np.arange(90), np.array(IDS)
    ids[3] = ""
    blank = np.arange(90) == 5
    shown = Interval(start=starts, end=starts + WINDOW / 2, image_id=ids, blank=blank, timekeys=["start", "end"])
    save(tmp_path, "a", 8, seed=0, presentations=shown)
    dataset = BinnedRecordings(tmp_path)
    encoder = encoder_of(dataset)
    train, test = (collect_responses(dataset, encoder, "a", split) for split in ("train", "test"))
    assert train.image_ids.tolist() == [IDS[k] for k in range(60) if k not in (3, 5)]
    assert test.repeats.tolist() == list(range(10))  # of one image


def test_recordings_without_images_and_splits_without_presentations_are_named(tmp_path):
    from neurobridge_tb._upstream import Interval

    starts = WINDOW * np.arange(90)
    shown = Interval(
        start=starts[:50], end=starts[:50] + 0.1, image_id=np.array(IDS[:50]), timekeys=["start", "end"]
    )  # fmt: skip
    save(tmp_path, "a", 8, seed=0, presentations=shown)
    dataset = BinnedRecordings(tmp_path)
    encoder = encoder_of(dataset)
    with pytest.raises(InputError, match="during which an image is shown[\\s\\S]*10 of 60 without, the first at 10 s"):
        collect_responses(dataset, encoder, "a", "train")
    recording = dataset.get_recording("a")
    recording.presentations = Interval(start=starts[:5], end=starts[:5] + 0.1)
    with pytest.raises(InputError, match="presentations with a column image_id in recording a"):
        responses_module.shown_in(recording, recording.train_domain, "train")


def test_a_presentation_that_only_touches_the_window_is_not_its_image(tmp_path):
    """Images follow one another without a gap, at times that floating point rounds."""
    from neurobridge_tb._upstream import Interval

    starts = WINDOW * np.arange(90)
    shown = Interval(
        start=starts, end=starts + WINDOW, image_id=np.array([f"{i}" for i in range(90)]), repeat=np.zeros(90, int),
        timekeys=["start", "end"],
    )  # fmt: skip
    save(tmp_path, "a", 8, seed=0, presentations=shown)
    dataset = BinnedRecordings(tmp_path)
    found = collect_responses(dataset, encoder_of(dataset), "a", "train").image_ids
    assert found.tolist() == [f"{i}" for i in range(60)]


def test_single_trials_are_as_many_of_each_image(recordings):
    test = recordings["test"][0]
    twice = replace(test, image_ids=np.repeat(["a", "b"], 5), repeats=np.tile(np.arange(5), 2))
    assert (twice.image_ids[twice.by_repeat()] == ["a", "b"]).all()
    assert twice.by_repeat()[:, 0].tolist() == [0, 1, 2, 3, 4]
    counted_over_all = replace(twice, repeats=10 - np.arange(10))
    assert counted_over_all.by_repeat()[:, 1].tolist() == [9, 8, 7, 6, 5]
    surplus = replace(twice, image_ids=np.array(["a", "b", "c"] * 3 + ["a"]), repeats=np.arange(10) // 3)
    assert surplus.by_repeat().tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_presentations_that_differ_by_a_bin_are_read_all_the_same(tmp_path):
    from neurobridge_tb._upstream import Interval

    starts = np.arange(90) * WINDOW
    ends = starts + WINDOW
    ends[5] -= WINDOW / BINS
    shown = Interval(
        start=starts, end=ends, image_id=np.array([f"{i}".encode() for i in range(90)], dtype=object),
        repeat=np.zeros(90, int), timekeys=["start", "end"],
    )  # fmt: skip
    save(tmp_path, "a", 8, seed=0, presentations=shown, train_ends=ends[:60])
    dataset = BinnedRecordings(tmp_path)
    found = collect_responses(dataset, encoder_of(dataset), "a", "train")
    assert found.image_ids.tolist() == [f"{i}" for i in range(60)]  # text, whatever type it had
    absent = np.isnan(found.values).all(2)
    assert absent.sum() == 1 and absent[5, -1]


def test_means_within_latent_steps_are_read_some_at_a_time(dataset, encoder, monkeypatch):
    whole = collect_responses(dataset, encoder, "a", "train")
    monkeypatch.setattr(responses_module, "_BLOCK", 7 * whole.values[0].size)
    parts = collect_responses(dataset, encoder, "a", "train", over_steps=True)
    assert parts.values.shape == (60, 2, 8) and parts.image_ids.tolist() == whole.image_ids.tolist()
    np.testing.assert_array_equal(parts.features, whole.features)
    half = whole.values.shape[1] // 2
    np.testing.assert_allclose(parts.values[:, 1], whole.values[:, half:].mean(1), rtol=1e-5)


def test_other_areas_and_times_are_hidden_from_encoder_and_baselines_alike(recordings):
    only = recordings["test"][0].only(["V1"], [0.1, 0.2])
    shown = ~np.isnan(only.values).all(0)
    assert shown[2:, ::2].all() and shown.sum() == 2 * 4
    assert torch.equal(only.batch(slice(2))["input_mask"][0], torch.from_numpy(shown))
    with pytest.raises(InputError, match=r"IT, V1.*\n.*V9"):
        recordings["test"][0].only(["V9"])
    with pytest.raises(InputError, match="begin at 0 to 0.15"):
        recordings["test"][0].only(None, [0.3, 0.4])


def test_concepts_of_test_images_are_left_out_of_training(dataset, encoder):
    config = {"areas": None, "time_window": None, "exclude_test_concepts": True, "train_share": 1.0}
    splits = pair_splits(dataset, encoder, "a", PairsConfig(**config))
    assert set(splits["test"].concepts) == {"c1"}
    assert set(splits["train"].concepts) == {f"c{i}" for i in (0, *range(2, 10))}
    assert len(splits["train"].values) == len(splits["train"].image_ids) == 54


@pytest.mark.parametrize(("share", "n"), [(1.0, 60), (0.5, 30), (0.001, 2)])
def test_a_share_of_the_training_pairs_is_spread_over_all_of_them(dataset, encoder, share, n):
    config = {"areas": None, "time_window": None, "exclude_test_concepts": False, "train_share": share}
    splits = pair_splits(dataset, encoder, "a", PairsConfig(**config))
    kept = splits["train"].image_ids.tolist()
    assert len(kept) == len(set(kept)) == n and kept[0] == IDS[0] and kept[-1] == IDS[59]
    assert [len(splits[s].values) for s in ("valid", "test")] == [20, 10]


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_is_none(dataset, encoder, share):
    config = {"areas": None, "time_window": None, "exclude_test_concepts": False, "train_share": share}
    with pytest.raises(InputError, match="train_share"):
        pair_splits(dataset, encoder, "a", PairsConfig(**config))


@pytest.fixture(scope="module")
def started(dataset, encoder, recordings):
    """An aligner with its linear path fitted to both recordings."""
    torch.manual_seed(0)
    aligner = ImageAligner(
        encoder=encoder.config, image_encoder="e", preprocessing_hash="", dim_embedding=DIM, dim_hidden=8,
        linear_path=True,
    )  # fmt: skip
    aligner.set_encoder(encoder)
    cache = embeddings()
    aligner.fit_embedding_statistics(cache.lookup(list(recordings["train"][0].image_ids)))
    pairs = [[(r, cache.lookup(list(r.image_ids))) for r in recordings[s]] for s in ("train", "valid")]
    return aligner, *fit_linear_path(aligner, *pairs), pairs


def test_the_start_is_ridge_on_responses_or_on_factors_in_every_recording(started, encoder):
    aligner, found, _, (train, valid) = started
    for k, penalty in enumerate(found["layers"]["final"]["penalties"]):
        bins = [r.values for r, _ in (train[k], valid[k])]
        if found["from"] == "factors":
            bins = [
                encoder.infer_factors(**r.batch(slice(None))).mean.detach().numpy() for r, _ in (train[k], valid[k])
            ]
        means = [x.reshape(len(x), 2, 2, -1).mean(2).reshape(len(x), -1) for x in bins]
        as_they_are = found["from"] == "responses"
        fit = fit_ridge(means[0], train[k][1], means[1], valid[k][1], penalties=[penalty], standardize=as_they_are)
        _, regression = embed_responses(aligner, valid[k][0])
        np.testing.assert_allclose(regression, fit.predict(means[1]), atol=2e-3)


def test_few_validation_pairs_leave_ridge_on_responses_as_it_is(started, recordings):
    """So that the start is not below ridge by a choice among shrinkages that chance made."""
    aligner, _, _, (train, valid) = started
    few = [(r.rows(np.arange(4)), target[:4]) for r, target in valid]
    again = copy.deepcopy(aligner)
    found, _ = fit_linear_path(again, train, few)
    assert found["from"] == "responses" and found["layers"]["final"]["shrinkage"] is None
    predicted, regression = embed_responses(again, recordings["test"][0])
    centred = torch.nn.functional.normalize(regression - again.embedding_mean, dim=1)
    torch.testing.assert_close(predicted, centred, atol=1e-4, rtol=1e-4)


def test_predictions_for_training_are_out_of_sample(started):
    """They are worse than the fit's own predictions of the same presentations, and as good as those of validation."""
    aligner, _, held_out, (train, valid) = started

    def error(responses, target, linear=None):
        if linear is None:
            linear = (embed_responses(aligner, responses)[1] - aligner.embedding_mean) / aligner.embedding_std
        return float(((linear - (target - aligner.embedding_mean) / aligner.embedding_std) ** 2).mean())

    for k in range(2):
        own, held, of_valid = error(*train[k]), error(*train[k], held_out[k]), error(*valid[k])
        assert own < 0.8 * held
        assert 0.4 * of_valid < held < 2.5 * of_valid


def test_the_start_weighs_down_what_is_predicted_badly(started):
    """Errors of unequal size: the discriminant's map gives the worse directions less than ridge alone would."""
    aligner, found, *_ = started
    assert found["validation top-5"] > 0.6
    gain = aligner.to_contrastive.maps[0].detach().diagonal() / aligner.embedding_std
    if found["layers"]["final"]["shrinkage"] is None:
        torch.testing.assert_close(gain / gain[0], torch.ones(DIM))
    else:
        assert not torch.allclose(gain / gain[0], torch.ones(DIM), rtol=0.01)


def test_a_dimension_that_few_images_leave_alone_does_not_outweigh_the_others(encoder):
    aligner = ImageAligner(encoder=encoder.config, image_encoder="e", preprocessing_hash="", dim_embedding=4)
    targets = torch.tensor([[0.0, 1, 5, 2], [0, 3, 1, 2.5], [0, 2, 9, 3]])
    aligner.fit_embedding_statistics(targets)
    torch.testing.assert_close(aligner.embedding_mean, targets.mean(0))
    std = targets.std(0)
    torch.testing.assert_close(aligner.embedding_std, torch.tensor([0.1 * std.median(), *std[1:]]))


def test_the_aligner_comes_back_from_disk_as_it_was(started, recordings, tmp_path):
    aligner = started[0]
    again = ImageAligner.load_pretrained(aligner.save_pretrained(tmp_path / "model"))
    for here, there in zip(*(embed_responses(a, recordings["test"][0]) for a in (aligner, again)), strict=True):
        torch.testing.assert_close(here, there)


def test_an_encoder_of_spike_events_is_refused():
    with pytest.raises(InputError, match="grid"):
        ImageAligner(
            encoder=dict(modality="spikes", sequence_length=0.2, latent_step=0.1),
            image_encoder="e", preprocessing_hash="", dim_embedding=4,
        )  # fmt: skip


def test_layers_are_fitted_one_by_one_and_weighted_by_what_they_tell(dataset, encoder, recordings):
    """A layer of noise beside the true one: each gets a ridge of its own, and the noise gets no weight."""
    torch.manual_seed(0)
    true, rng = embeddings(), np.random.default_rng(3)
    cache = EmbeddingCache(
        true.ids, {"noise": rng.normal(size=(len(true.ids), 7)), "signal": true.embeddings}, encoder="e"
    )
    aligner = ImageAligner(
        encoder=encoder.config, image_encoder="e", preprocessing_hash="", dim_embedding=7 + DIM, layers=cache.layers,
        dim_hidden=8, linear_path=True,
    )  # fmt: skip
    aligner.set_encoder(encoder)
    aligner.fit_embedding_statistics(cache.lookup(list(recordings["train"][0].image_ids)))
    train, valid = ([(r, cache.lookup(list(r.image_ids))) for r in recordings[s]] for s in ("train", "valid"))
    found, held_out = fit_linear_path(aligner, train, valid)
    assert found["layers"]["signal"]["weight"] > 0.9 and found["validation top-5"] > 0.6
    assert found["layers"]["noise"]["validation top-1"] < found["layers"]["signal"]["validation top-1"]
    assert [a.shape for a in held_out] == [(len(r.values), 7 + DIM) for r, _ in train]
    contrastive, _ = embed_responses(aligner, valid[0][0])
    images = aligner.center(valid[0][1])
    torch.testing.assert_close(contrastive.norm(dim=1), torch.ones(len(contrastive)))
    cosines = [torch.cosine_similarity(contrastive[:, c], images[:, c]) for c in (slice(7), slice(7, None))]
    total = sum(w * cosine for w, cosine in zip(aligner.layer_weights, cosines, strict=True))
    torch.testing.assert_close((contrastive * images).sum(1), total)


def test_an_aligner_of_before_there_were_layers_comes_back(started, recordings, tmp_path):
    import json

    from safetensors.torch import load_file, save_file

    aligner = started[0]
    folder = aligner.save_pretrained(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["to_contrastive.weight"] = state.pop("to_contrastive.maps.0")
    old = {k: v for k, v in state.items() if "image_map" not in k and k != "layer_weights"}
    save_file(old, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["config"]["layers"]
    (folder / "config.json").write_text(json.dumps(config))
    again = ImageAligner.load_pretrained(folder)
    for here, there in zip(*(embed_responses(a, recordings["test"][0]) for a in (aligner, again)), strict=True):
        torch.testing.assert_close(here, there)


def test_test_images_that_are_trained_on_are_counted_and_refused_unless_wanted(tmp_path):
    from neurobridge_tb._upstream import Interval

    starts, test = WINDOW * np.arange(90), IDS[-1]
    shown = Interval(
        start=starts, end=starts + WINDOW / 2, image_id=np.array([test, *IDS[1:]]), repeat=np.zeros(90, int),
        timekeys=["start", "end"],
    )  # fmt: skip
    save(tmp_path, "a", 8, seed=0, presentations=shown)
    dataset = BinnedRecordings(tmp_path)
    encoder = encoder_of(dataset)
    with pytest.raises(InputError, match=f"Found 1 that it does, e.g. {test}"):
        pair_splits(dataset, encoder, "a", PairsConfig())
    splits = pair_splits(dataset, encoder, "a", PairsConfig(shared_test_images=True))
    assert shared_test_images(splits) == [test]


def test_test_images_that_another_recording_trains_on_are_refused_unless_wanted(dataset, encoder):
    splits = {r: pair_splits(dataset, encoder, r, PairsConfig()) for r in dataset.recording_ids}
    check_test_images(splits, embeddings(), PairsConfig())  # both are split by the same images
    splits["b"]["train"], splits["b"]["test"] = splits["b"]["test"], splits["b"]["train"]
    with pytest.raises(InputError, match=r"a test image of a\.\nSplit all recordings by the same images"):
        check_test_images(splits, embeddings(), PairsConfig())
    check_test_images(splits, embeddings(), PairsConfig(shared_test_images=True))


def test_copies_of_test_images_that_are_trained_on_are_refused_unless_wanted(dataset, encoder):
    splits = {"a": pair_splits(dataset, encoder, "a", PairsConfig())}
    values = embeddings().embeddings.clone()
    ids = embeddings().ids
    values[ids.index("c1/1.jpg")] = values[ids.index("c1/t1.jpg")] * (1 + 1e-7)  # another batch rounds otherwise
    copies = EmbeddingCache(ids, values, encoder="e")
    with pytest.raises(InputError, match="Found 1 that are, by another name, e.g. c1/t1.jpg"):
        check_test_images(splits, copies, PairsConfig())
    check_test_images(splits, copies, PairsConfig(shared_test_images=True))
