"""The routes of ``/v1`` and ``/v2`` and their contract: what a request may hold, and what is answered."""
