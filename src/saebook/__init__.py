"""saebook: what sae-lens lacks for telling right sparse autoencoders from wrong ones."""

__version__ = "0.1.0"
