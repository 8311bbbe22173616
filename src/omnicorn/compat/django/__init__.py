"""An app for Django: ``manage.py runserver`` serves ASGI.

::

    INSTALLED_APPS = ["omnicorn.compat.django", ..., "django.contrib.staticfiles", ...]

It must stand before ``django.contrib.staticfiles`` and ``daphne``, which have a command of that
name, too; Django's check ``omnicorn.E001`` says so.
"""
