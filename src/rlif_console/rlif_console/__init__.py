# SPDX-License-Identifier: Apache-2.0
"""The operator console: a web page that shows a running graph and is an operator device of it."""
