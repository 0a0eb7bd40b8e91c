"""Encoders of frames and decoders of sentences."""
