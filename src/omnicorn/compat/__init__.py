"""Other servers' interfaces, L6, for programs that were written to them.

Each module stands for itself and is imported by whoever wants it: ``uvicorn``, ``gunicorn``,
``django``, ``aioscgi``. None is imported by the rest of omnicorn.
"""
