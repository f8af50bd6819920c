"""Encoders loaded, adapted and saved so that nothing is lost."""
