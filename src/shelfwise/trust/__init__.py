"""Trust: what may be believed of predictions. Arrays and values in, rules and findings out; no torch."""
