# SPDX-License-Identifier: Apache-2.0
"""What `rlif COMMAND` runs: each module has `add_arguments(parser)` and `run(arguments) -> int`."""
