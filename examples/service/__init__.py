"""A search service with normalised search, raw search, and an experiment that compares them on live traffic."""
