"""One file, one way to turn a Catalog into a Predictor."""
