"""The gate of every architecture that an ensemble can train."""

from __future__ import annotations

from saebook.training.engine.gates.gate import Gate, MatryoshkaGate
from saebook.training.engine.gates.thresholds import GatedGate, JumpReLUGate
from saebook.training.engine.gates.topk import BatchTopKGate, ScheduledBatchTopKGate, TopKGate

GATES: dict[str, type[Gate]] = {
    "standard": Gate,
    "balanced_matryoshka": MatryoshkaGate,
    "matryoshka_batchtopk": BatchTopKGate,
    "balanced_matryoshka_batchtopk": BatchTopKGate,
    "topk": TopKGate,
    "batchtopk": BatchTopKGate,
    "scheduled_batchtopk": ScheduledBatchTopKGate,
    "jumprelu": JumpReLUGate,
    "gated": GatedGate,
}
