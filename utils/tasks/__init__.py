"""Tasks that are fine-tuned on one language and evaluated in many."""
