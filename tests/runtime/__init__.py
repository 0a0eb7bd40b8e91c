"""Tests of what goes on the device."""
