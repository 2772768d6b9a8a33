"""One file a data source; discovery finds them."""
