"""Calls of trainers whose options are given as keywords, as tests vary them one by one."""

import dataclasses

from saebook.training import TrainingOptions

NAMES = {field.name for field in dataclasses.fields(TrainingOptions)}


def called(trainer, *data, **settings):
    """What a trainer gives for its data, with those settings that are options as its options."""
    options = {name: settings.pop(name) for name in NAMES & settings.keys()}
    return trainer(*data, TrainingOptions(**options), **settings)
