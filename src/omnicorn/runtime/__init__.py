"""Process life, L5: the command line, loading the application, serving, stopping."""
