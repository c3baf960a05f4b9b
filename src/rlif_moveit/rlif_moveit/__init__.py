"""Adapter to an existing MoveIt stack. The only package that speaks MoveIt's interfaces."""
