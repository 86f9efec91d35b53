"""The gate of every architecture that an ensemble can train."""

from __future__ import annotations

from saebook._gate import Gate, MatryoshkaGate
from saebook._threshold_gates import GatedGate, JumpReLUGate
from saebook._topk_gates import BatchTopKGate, ScheduledBatchTopKGate, TopKGate

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
