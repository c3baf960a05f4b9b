"""What every node of the suite shares: parameters as a table, QoS, an orderly end."""
