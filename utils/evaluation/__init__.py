"""How good vectors and predictions are: nearest neighbours, sentence vectors, word distances, metrics."""
