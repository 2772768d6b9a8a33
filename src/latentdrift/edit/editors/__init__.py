"""One file an editor; discovery finds them."""
