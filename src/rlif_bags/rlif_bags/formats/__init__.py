"""Other programs' formats: LeRobot, Minari, plain arrays."""
