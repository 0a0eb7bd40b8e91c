"""int8 within a budget of the task's metric: candidates are made, measured here, judged, and written or refused."""
