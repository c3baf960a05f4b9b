# SPDX-License-Identifier: Apache-2.0
"""Other programs' formats: LeRobot, Minari, plain arrays."""
