"""Does it help here? Relevance judgements, and what is measured with them."""
