"""Word aligners: who links the words of a sentence pair."""
