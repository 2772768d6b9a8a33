"""Writing an edited image as a file that a viewer, a PACS or a pipeline takes."""
