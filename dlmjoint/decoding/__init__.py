"""One decoding loop; every choice it makes is a small frozen object."""
