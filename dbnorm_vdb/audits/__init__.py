"""Audits: what hubs there are in a collection, whether normalisation mends them, and whether somebody planted some."""
