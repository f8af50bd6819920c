"""How good vectors and predictions are: nearest neighbors, sentence vectors, word distances, metrics."""
