"""The learning algorithms: RLPD and the imitation baselines BC, HG-DAgger and DAgger."""
