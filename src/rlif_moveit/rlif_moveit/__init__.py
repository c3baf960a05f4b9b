# SPDX-License-Identifier: Apache-2.0
"""Adapter to an existing MoveIt stack. The only package that speaks MoveIt's interfaces."""
