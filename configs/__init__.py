"""Presets: one a file, each with what it does, what to expect, what it costs and the command."""
