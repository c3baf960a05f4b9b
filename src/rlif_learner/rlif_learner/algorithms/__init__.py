# SPDX-License-Identifier: Apache-2.0
"""The learning algorithms: RLPD and the imitation baselines BC, HG-DAgger and DAgger."""
