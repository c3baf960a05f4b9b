# SPDX-License-Identifier: Apache-2.0
"""Arbiter, episode and recorder nodes: control source, limits and recording."""
