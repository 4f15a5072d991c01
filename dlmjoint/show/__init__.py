"""One decoding made visible: who wrote which token, and when."""
