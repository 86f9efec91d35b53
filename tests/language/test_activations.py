"""Activations are the model's own, and replacing them does what it says and no more."""

import math

import pytest
import torch

from saebook.language import (
    collect_activations,
    identity,
    load_language_model,
    mean_ablation,
    recovered_share,
    run_replaced,
    splice,
    token_losses,
    zero_ablation,
)

HOOK = "blocks.0.hook_out"


@pytest.fixture(scope="module")
def model(_saved_once):
    return load_language_model(str(_saved_once))


@pytest.fixture(scope="module")
def tokens():
    ids = torch.randint(1, 300, (5, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    return ids


def oracle(model, tokens):
    """The residual stream after the first block, by Hugging Face's own outputs."""
    with torch.no_grad():
        out = model.bridge.original_model(tokens, output_hidden_states=True)
    return out.hidden_states[1]


def test_activations_are_the_hidden_states_of_the_model(model, tokens):
    acts = collect_activations(model, tokens, HOOK, batch_size=2)
    assert torch.allclose(acts, oracle(model, tokens), atol=1e-5)


@pytest.mark.parametrize("hook", ["blocks.1.hook_out", "blocks.0.hook_in", "blocks.1.mlp.hook_out"])
def test_any_hook_point_can_be_read(model, tokens, hook):
    acts = collect_activations(model, tokens, hook)
    _, cache = model.bridge.run_with_cache(tokens, names_filter=hook)
    assert torch.allclose(acts, cache[hook], atol=1e-5)


def test_a_file_holds_the_same_activations(model, tokens, tmp_path):
    path = tmp_path / "acts" / "x.npy"
    mapped = collect_activations(model, tokens, HOOK, path=path, batch_size=2)
    assert torch.equal(mapped, collect_activations(model, tokens, HOOK, batch_size=2))
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_collection_leaves_no_file_of_that_name(
    model, tokens, tmp_path, monkeypatch
):
    path = tmp_path / "x.npy"
    path.write_bytes(b"before")
    calls = []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return oracle(model, args[1])

    monkeypatch.setattr("saebook.language.activations._activations_of", killed)
    with pytest.raises(KeyboardInterrupt):
        collect_activations(model, tokens, HOOK, path=path, batch_size=2)
    assert path.read_bytes() == b"before"


def test_splicing_in_the_identity_gives_exactly_the_clean_loss(model, tokens):
    clean = token_losses(model, tokens)
    assert torch.equal(token_losses(model, tokens, HOOK, identity), clean)
    assert clean.shape == (5, 8)


def test_losses_are_those_of_hugging_face(model, tokens):
    with torch.no_grad():
        loss = model.bridge.original_model(tokens, labels=tokens).loss
    assert token_losses(model, tokens, batch_size=2).mean().item() == pytest.approx(
        loss.item(), abs=1e-5
    )


def test_replacing_at_the_last_hook_point_is_done_by_hand(model, tokens):
    """After the last block only the final norm and the unembedding follow."""
    hf, shift = model.bridge.original_model, torch.linspace(-1, 1, 16)
    hook = model.hook_after_block(1)
    logits = run_replaced(model, tokens, hook, lambda acts: acts + shift)
    x = collect_activations(model, tokens, hook)
    x[:, 1:] += shift
    by_hand = hf.lm_head(hf.transformer.ln_f(x))
    assert torch.allclose(logits, by_hand, atol=1e-4)


def test_the_first_position_is_never_replaced(model, tokens):
    hook = model.hook_after_block(1)
    clean = run_replaced(model, tokens, hook, None)
    zeroed = run_replaced(model, tokens, hook, zero_ablation)
    assert torch.equal(clean[:, 0], zeroed[:, 0])
    assert not torch.allclose(clean[:, 1:], zeroed[:, 1:])


def test_no_hook_stays_behind(model, tokens):
    before = run_replaced(model, tokens, HOOK, None)
    run_replaced(model, tokens, HOOK, zero_ablation)
    with pytest.raises(ValueError, match="replace must keep the shape"):
        run_replaced(model, tokens, HOOK, lambda acts: acts[:, :2])
    assert torch.equal(run_replaced(model, tokens, HOOK, None), before)


def test_splicing_gives_the_losses_of_its_replacements(model, tokens):
    acts = collect_activations(model, tokens, HOOK)
    mean = acts[:, 1:].mean((0, 1))
    names = {"zero": zero_ablation, "mean": mean_ablation(mean)}
    found = splice(model, tokens, HOOK, names, mean=mean)
    losses = {
        name: token_losses(model, tokens, HOOK, replace).double().mean().item()
        for name, replace in {"clean": identity, **names}.items()
    }
    assert {"clean": found.clean, "zero": found.zero, "mean": found.mean} == losses
    assert found.table["loss"].to_dict() == {name: losses[name] for name in names}


def test_where_an_ablation_does_not_raise_the_loss_no_share_is_defined(model, tokens):
    """An untrained model gains by zeros, and loses by a mean that promises one token everywhere."""
    promise = 100 * model.bridge.W_U[:, 5] / model.bridge.ln_final.weight
    found = splice(model, tokens, model.hook_after_block(1), {"same": identity}, mean=promise)
    assert found.zero < found.clean < found.mean
    assert math.isnan(found.table.loc["same", "loss_recovered"])
    assert found.table.loc["same", "loss_recovered_mean"] == 1


def test_identity_recovers_all_zero_ablation_nothing_and_the_mean_its_own_nothing():
    """The trained model, where ablations do hurt."""
    model = load_language_model("embedded")
    text = "Parameters\n----------\nx : array_like\n    The input data. Returns the mean of x. " * 4
    tokens = model.contexts([text], n_ctx=32)
    hook = model.hook_after_block(2)
    mean = collect_activations(model, tokens, hook)[:, 1:].mean((0, 1))
    names = {"identity": identity, "zero": zero_ablation, "mean": mean_ablation(mean)}
    table = splice(model, tokens, hook, names, mean=mean).table
    assert table["loss_recovered"]["identity"] == 1
    assert table["loss_recovered"]["zero"] == 0
    assert table["loss_recovered_mean"]["mean"] == 0


def test_the_recovered_share_by_hand():
    assert recovered_share(2.0, 3.0, 6.0) == 0.75
    with pytest.raises(ValueError, match="ablated must be above clean = 2, got 2"):
        recovered_share(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("hook", "suggestion"), [("blocks.9.hook_out", "blocks.0"), ("nowhere", "blocks.0.hook_out")]
)
def test_an_unknown_hook_point_is_named(model, tokens, hook, suggestion):
    for call in (
        lambda: collect_activations(model, tokens, hook),
        lambda: token_losses(model, tokens, hook, identity),
    ):
        with pytest.raises(ValueError, match=f"hook_name must be .*{suggestion}.*got '{hook}'"):
            call()


def test_a_replacement_without_a_hook_point_is_refused(model, tokens):
    with pytest.raises(ValueError, match=r"hook_name must be .*blocks\.0\.hook_out.*got None"):
        run_replaced(model, tokens, replace=identity)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 17, dtype=torch.int64), r"tokens must have shape \(n_contexts, 2 … 16\)"),
        (torch.zeros(0, 9, dtype=torch.int64), "tokens must have shape"),
        (torch.zeros(9, dtype=torch.int64), "tokens must have shape"),
        (torch.full((2, 4), 300), r"tokens must hold ids in \[0, 299\], got values from 300"),
        (torch.full((2, 4), -1), "tokens must hold ids"),
    ],
)
def test_tokens_that_are_no_contexts_are_refused(model, bad, message, unchecked):
    with pytest.raises(ValueError, match=message):
        collect_activations(model, bad, HOOK)


def test_tokens_of_another_kind_are_refused(model, unchecked):
    with pytest.raises(TypeError, match="tokens must be a torch.Tensor of int64 ids, got torch.fl"):
        collect_activations(model, torch.zeros(2, 4), HOOK)
