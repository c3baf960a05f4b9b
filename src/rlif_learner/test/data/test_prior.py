# SPDX-License-Identifier: Apache-2.0
"""Demonstrations are read by whichever package registered a reader."""

from types import SimpleNamespace

import pytest

from rlif_learner.data import prior


def test_open_prior_calls_the_first_reader_by_name(monkeypatch):
    def reader(name):
        return SimpleNamespace(name=name, load=lambda: lambda *asked: (name, *asked))

    monkeypatch.setattr(prior, "entry_points", lambda group: [reader("b"), reader("a")])
    assert prior.open_prior(["demonstrations"], False) == ("a", ["demonstrations"], False)


def test_open_prior_without_a_reader_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(prior, "entry_points", lambda group: [])
    with pytest.raises(ValueError, match="no reader of recordings.*install rlif_bags"):
        prior.open_prior(["demonstrations"], False)
