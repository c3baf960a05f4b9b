# SPDX-License-Identifier: Apache-2.0
"""Pictures, films and Rerun logs of recorded episodes."""
