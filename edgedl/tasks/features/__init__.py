"""What a network has learnt."""
