"""What every node of the suite shares: parameters as a table, QoS, enums, graceful shutdown."""
