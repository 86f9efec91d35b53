"""SAE architectures that sae-lens lacks, and SAEs made from trained ones.

Importing this package registers the architectures with sae-lens under their own names, so
`sae_lens.TrainingSAE.from_dict`, loading and saving find them.
"""

from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class

from saebook.saes.balancing import Balance, balancing_weight, compound_weights, per_prefix_weights
from saebook.saes.matryoshka import (
    BalancedMatryoshkaBatchTopKTrainingSAE,
    BalancedMatryoshkaBatchTopKTrainingSAEConfig,
    BalancedMatryoshkaTrainingSAE,
    BalancedMatryoshkaTrainingSAEConfig,
)
from saebook.saes.scheduled import (
    ScheduledBatchTopKTrainingSAE,
    ScheduledBatchTopKTrainingSAEConfig,
)
from saebook.saes.transforms import inference_sae, turned, widened, with_k

__all__ = [
    "Balance",
    "BalancedMatryoshkaBatchTopKTrainingSAE",
    "BalancedMatryoshkaBatchTopKTrainingSAEConfig",
    "BalancedMatryoshkaTrainingSAE",
    "BalancedMatryoshkaTrainingSAEConfig",
    "ScheduledBatchTopKTrainingSAE",
    "ScheduledBatchTopKTrainingSAEConfig",
    "balancing_weight",
    "compound_weights",
    "inference_sae",
    "per_prefix_weights",
    "turned",
    "widened",
    "with_k",
]

_OURS = (
    (ScheduledBatchTopKTrainingSAE, ScheduledBatchTopKTrainingSAEConfig),
    (BalancedMatryoshkaTrainingSAE, BalancedMatryoshkaTrainingSAEConfig),
    (BalancedMatryoshkaBatchTopKTrainingSAE, BalancedMatryoshkaBatchTopKTrainingSAEConfig),
)
for _sae_class, _cfg_class in _OURS:
    if _cfg_class.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
        register_sae_training_class(_cfg_class.architecture(), _sae_class, _cfg_class)
