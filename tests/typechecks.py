"""The run-time type checker of the tests: beartype, where an int passes for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
