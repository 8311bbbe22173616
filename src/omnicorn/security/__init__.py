"""Whom to believe; L1. ``trust``: which peers speak for others, and what they say."""
