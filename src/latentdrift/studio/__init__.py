"""The web pages: the studio over the Python API, and the reader study."""
