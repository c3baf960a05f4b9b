# SPDX-License-Identifier: Apache-2.0
"""Bags that this suite did not record: a mapping of their topics makes Steps of them."""
