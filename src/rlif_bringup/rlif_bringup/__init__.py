# SPDX-License-Identifier: Apache-2.0
"""The `rlif` command, the launch interpreter, the demo, and the installed launch/ and config/."""
