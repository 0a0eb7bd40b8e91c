"""The age networks and the face detector."""
