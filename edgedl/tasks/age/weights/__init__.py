"""Public weights of the age network and of the face detector."""
