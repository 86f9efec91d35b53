"""Claims on pages: the ledger, and what replications say of their numbers."""
