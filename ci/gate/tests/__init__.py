"""Tests of the gate; run them with pytest."""
