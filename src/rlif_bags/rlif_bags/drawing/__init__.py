"""Pictures, films and Rerun logs of recorded episodes."""
