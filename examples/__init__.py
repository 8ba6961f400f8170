"""Small applications that run, one a folder."""
