# SPDX-License-Identifier: Apache-2.0
"""The paper's comparison, RLIF against DAgger with imperfect operators, with the suite's own learner."""
