# SPDX-License-Identifier: Apache-2.0
"""Observer and policy nodes: from sensors to an observation, from an observation to an action."""
