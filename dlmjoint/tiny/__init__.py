"""A language small enough for a laptop, whose truth is known: corpus, tokenizer, models."""
