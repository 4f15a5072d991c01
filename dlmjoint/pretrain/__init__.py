"""The recipe by which bases and judges of our own worlds are trained from nothing."""
