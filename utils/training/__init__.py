"""The trainers and what surrounds a run: arguments, losses, interruption, tracking, model card, sharing."""
