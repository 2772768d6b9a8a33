"""One file a fine-tuning method; discovery finds them."""
