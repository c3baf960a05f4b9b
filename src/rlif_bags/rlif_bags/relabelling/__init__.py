# SPDX-License-Identifier: Apache-2.0
"""New labels for recorded Steps, for one bag or many in parallel."""
