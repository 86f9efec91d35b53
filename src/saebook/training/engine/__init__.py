"""The stacked program that trains an ensemble: private to `saebook.training`."""
