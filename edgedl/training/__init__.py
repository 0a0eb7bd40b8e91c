"""How networks learn: objectives, penalties, optimisers, schedules, augmentation, and runs that can be resumed."""
