"""rosbag2 bags: read, repaired, relabelled, replayed, shown, and learned from offline."""
