# SPDX-License-Identifier: Apache-2.0
"""rosbag2 bags: read, repaired, relabelled, replayed, shown, and learned from offline."""
