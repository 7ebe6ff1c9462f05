"""Measurements side by side with what a user would pick instead; they never gate a test."""
