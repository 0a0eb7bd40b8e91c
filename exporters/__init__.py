"""torch -> ONNX -> bundle, and the proof that nothing changed on the way."""

PART_OF = "edgedl"
