"""saebook: what sae-lens lacks for telling right sparse autoencoders from wrong ones."""

__version__ = "0.2.0"
